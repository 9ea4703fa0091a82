"""Exports in the engines they are for: token ids of vLLM, transformers and PEFT beside embedgrad's own greedy decoding.

    python scripts/serve_check.py --serving-python .venv-serving/bin/python [--placements system] [--examples N]

Needs an environment with vLLM (`make test-serving` makes one) and nothing from outside: the model is the embedded one.
Prints a table and every difference, writes them to DIR/serve_check.json, and ends with 1 if a difference is not a tie,
if a route's accuracy is not that of results.json but for ties, or if a format accepts a prompt that it cannot carry.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import asdict
from io import StringIO
from itertools import chain
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from rich.console import Console
from rich.table import Table

from embedgrad_cli import assets
from embedgrad_cli.cli.main import main as embedgrad
from embedgrad_cli.storage.files import write_json
from serving import routes
from serving.compare import Comparison, Reference, compare
from serving.recipes import run_recipe
from serving.reference import reference_of
from serving.server import vllm_server

CONFIG_DIR = Path(__file__).parent / "serving/conf"  # has the placement with several slots
BEFORE_QUERY = ("system", "before-query")  # what PEFT can carry
PLACEMENTS = (*BEFORE_QUERY, "after-query", "both-sides")
EMBEDS_FLAGS = ("--enable-prompt-embeds", "--chat-template-content-format", "string")
References = dict[str, Reference]  # by placement
console = Console(highlight=False, soft_wrap=True)
console.width = max(console.width, 120)


def main() -> int:
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leave by way of the servers' clean-up
    shutil.rmtree(args.out, ignore_errors=True)
    for placement in args.placements:
        prepare(args.out / placement, placement, args.steps, args.examples)
    references = {placement: reference_of(args.out / placement) for placement in args.placements}
    comparisons = []
    for one in chain(in_process(args.out, references), served(args.out, references, args.serving_python)):
        console.print(f"{one.route}, {one.prompt}: {one.equal} of {one.total} equal", markup=False)
        comparisons.append(one)
    report(comparisons, args.out)
    return 0 if all(comparison.is_explained for comparison in comparisons) else 1


def prepare(folder: Path, placement: str, steps: int, examples: int) -> None:
    """A prompt and its exports, made by the command line. `folder` is laid out like the recipes of docs/serving.md."""
    run = [f"template={placement}", f"train.steps={steps}", "task.split.num_validation=50", "device=cpu"]
    run += ["--config-dir", str(CONFIG_DIR), f"task.split.num_test={examples}", f"output_dir={folder}"]
    call(["optimize", *run])
    for name in ("model", "embeds"):
        call(export(folder, name))
    if placement in BEFORE_QUERY:
        call(export(folder, "peft"))
    else:
        check_refused(folder, "peft")


def export(folder: Path, name: str) -> list[str]:
    return ["export", f"artifact={folder}/prompt.safetensors", f"format={name}", f"output_dir={folder}/{name}"]


def call(command: list[str]) -> None:
    if embedgrad(command) != 0:
        sys.exit(f"embedgrad {' '.join(command)} failed")


def check_refused(folder: Path, name: str) -> None:
    """A format that cannot carry a prompt says so in one sentence, names one that can, and leaves nothing."""
    with redirect_stderr(StringIO()) as errors:
        code = embedgrad(export(folder, name))
    said = errors.getvalue().strip()
    if code != 2 or len(said.splitlines()) != 1 or "use format=" not in said or (folder / name).exists():
        sys.exit(f"format={name} had to refuse the prompt {folder.name}; exit code {code}: {said}")
    console.print(f"{folder.name}, refused: {said}", markup=False)


def in_process(out: Path, references: References) -> Iterator[Comparison]:
    """transformers and PEFT, in this environment."""
    for placement, reference in references.items():
        folder, queries = out / placement, reference.queries
        yield compare("transformers + model", placement, routes.transformers(folder, queries), reference)
        if placement in BEFORE_QUERY:
            yield compare("PEFT + peft", placement, routes.peft(folder, queries), reference)


def served(out: Path, references: References, python: Path) -> Iterator[Comparison]:
    """vLLM, once with each exported model, and twice with the model as it is; the recipes on the same servers."""
    for number, (placement, reference) in enumerate(references.items()):
        folder = out / placement
        with vllm_server(python, folder / "model", out / f"vllm-{placement}.log") as url:
            yield compare("vLLM chat + model", placement, routes.chat(folder, reference.queries, url), reference)
            if number == 0:
                run_recipe("vLLM: chat", folder, url)
    model = Path(assets.resolve("embedded:tiny"))
    with vllm_server(python, model, out / "vllm-embeds.log", *EMBEDS_FLAGS) as url:
        yield from with_embeddings(out, references, url)
    folders = {placement: out / placement for placement in references}
    queries = {placement: reference.queries for placement, reference in references.items()}
    for placement, found in routes.offline(folders, queries, python, out).items():
        yield compare("vLLM offline + to_vllm", placement, found, references[placement])


def with_embeddings(out: Path, references: References, url: str) -> Iterator[Comparison]:
    """The two ways to send embeddings to one server for all prompts."""
    for placement, reference in references.items():
        folder, queries = out / placement, reference.queries
        yield compare("vLLM completions + embeds", placement, routes.completions(folder, queries, url), reference)
        if not (folder / "embeds/request.json").exists():
            console.print(f"vLLM chat parts + embeds, {placement}: left out, format=embeds wrote no request.json")
            continue
        yield compare("vLLM chat parts + embeds", placement, routes.parts(folder, queries, url), reference)
        run_recipe("vLLM: embeddings", folder, url)


def report(comparisons: Sequence[Comparison], out: Path) -> None:
    table = Table("route", "prompt", "equal token ids", "correct", "in results.json")
    for one in comparisons:
        table.add_row(one.route, one.prompt, f"{one.equal} of {one.total}", str(one.correct), str(one.reported))
    console.print(table)
    for one in comparisons:
        for d in one.differences:
            console.print(
                f"{one.route}, {one.prompt}, {d['id']}: {d['found']!r} instead of {d['expected']!r} at token "
                f"{d['place']}, logits {d['gap']:.1e} apart",
                markup=False,
            )
        if not one.is_explained:
            console.print(f"{one.route}, {one.prompt}: ties do not explain this", markup=False)
    write_json(out / "serve_check.json", {"routes": [{**asdict(one), "equal": one.equal} for one in comparisons]})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serving-python", type=Path, required=True, help="the python of an environment with vLLM")
    parser.add_argument("--placements", nargs="+", choices=PLACEMENTS, default=PLACEMENTS)
    parser.add_argument("--examples", type=int, default=100, help="word problems per route")
    parser.add_argument("--steps", type=int, default=15, help="optimiser steps")
    parser.add_argument("--out", type=Path, default=Path("outputs/serving"))
    args = parser.parse_args()
    args.serving_python = args.serving_python.absolute()
    args.out = args.out.absolute()
    return args


if __name__ == "__main__":
    sys.exit(main())
