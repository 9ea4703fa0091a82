"""Exports in the engines they are for: token ids of vLLM, transformers and PEFT beside embedgrad's own greedy decoding.

    python scripts/serve_check.py --serving-python .venv-serving/bin/python [--placements system] [--examples N]
    python scripts/serve_check.py --model PATH --placements system --examples 50 task.max_new_tokens=64 …

Needs an environment with vLLM (`make test-serving` makes one; without `--serving-python` there is transformers and PEFT
alone) and nothing from outside: the model is the embedded one. Another (a folder, a GGUF file, a hub id) is first
written as a folder of float32 weights, which every engine reads and in which rounding is smallest. Further words are
settings of `embedgrad optimize`, with which the prompts are made: another task, say.

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
from embedgrad_cli.config.schema import ModelConfig
from embedgrad_cli.core.model.device import pick_device
from embedgrad_cli.core.model.load import load_model
from embedgrad_cli.storage.files import write_json
from serving import routes
from serving.compare import Comparison, Reference, compare
from serving.graded import by_engine, by_server
from serving.optimized import by_engine_in_training
from serving.recipes import run_recipe
from serving.reference import reference_of
from serving.server import prefix_keys, transformers_server, vllm_server

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
    settings = [f"train.steps={args.steps}", f"task.split.num_test={args.examples}", *args.settings]
    if args.model is None:
        model = Path(assets.resolve("embedded:tiny"))
    else:
        model = in_float32(args.model, args.out / "base")
        settings = ["model=local", f"model.path={model}", *settings]
    for placement in args.placements:
        prepare(args.out / placement, placement, settings)
    references = {placement: reference_of(args.out / placement) for placement in args.placements}
    comparisons = []
    routes_of = [in_process(args.out, references)]
    if args.serving_python is not None:
        routes_of.append(served(args.out, references, args.serving_python, model, with_recipes=args.model is None))
    for one in chain(*routes_of):
        console.print(f"{one.route}, {one.prompt}: {one.equal} of {one.total} equal", markup=False)
        comparisons.append(one)
    report(comparisons, args.out)
    return 0 if all(comparison.is_explained for comparison in comparisons) else 1


def in_float32(model: str, folder: Path) -> Path:
    """The model as a folder of float32 weights, whatever it is kept in."""
    loaded = load_model(ModelConfig(model, None, "float32", "auto", trust_remote_code=False), pick_device("cpu"))
    loaded.network.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def prepare(folder: Path, placement: str, settings: Sequence[str]) -> None:
    """A prompt and its exports, made by the command line. `folder` is laid out like the recipes of docs/serving.md."""
    run = [f"template={placement}", "task.split.num_validation=50", "device=cpu", *settings]
    call(["optimize", "--config-dir", str(CONFIG_DIR), *run, f"output_dir={folder}"])
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


def served(out: Path, references: References, python: Path, model: Path, with_recipes: bool) -> Iterator[Comparison]:
    """vLLM, once with each exported model, and twice with the model as it is; the recipes on the same servers."""
    console.print(prefix_keys(python), markup=False)
    for number, (placement, reference) in enumerate(references.items()):
        folder = out / placement
        with vllm_server(python, folder / "model", out / f"vllm-{placement}.log") as url:
            yield compare("vLLM chat + model", placement, routes.chat(folder, reference.queries, url), reference)
            yield compare("vLLM, evaluate server=URL", placement, by_server(folder, reference, url), reference)
            if number == 0 and with_recipes:
                run_recipe("vLLM: chat", folder, url)
        with transformers_server(python, folder / "model", out / f"transformers-{placement}.log") as url:
            found = by_server(folder, reference, url, f"requests.model={folder}/model")
            yield compare("transformers serve + model", placement, found, reference)
    with vllm_server(python, model, out / "vllm-embeds.log", *EMBEDS_FLAGS) as url:
        yield from with_embeddings(out, references, url, with_recipes)
    folders = {placement: out / placement for placement in references}
    queries = {placement: reference.queries for placement, reference in references.items()}
    for placement, reference in references.items():
        yield compare("vLLM, evaluate engine=vllm", placement, by_engine(out / placement, reference, python), reference)
    if with_recipes:
        yield from by_engine_in_training(out / "optimized", python)
    for placement, found in routes.offline(folders, queries, python, out).items():
        yield compare("vLLM offline + to_vllm", placement, found, references[placement])


def with_embeddings(out: Path, references: References, url: str, with_recipes: bool) -> Iterator[Comparison]:
    """The two ways to send embeddings to one server for all prompts."""
    for placement, reference in references.items():
        folder, queries = out / placement, reference.queries
        yield compare("vLLM completions + embeds", placement, routes.completions(folder, queries, url), reference)
        if not (folder / "embeds/request.json").exists():
            console.print(f"vLLM chat parts + embeds, {placement}: left out, format=embeds wrote no request.json")
            continue
        yield compare("vLLM chat parts + embeds", placement, routes.parts(folder, queries, url), reference)
        if with_recipes:
            run_recipe("vLLM: embeddings", folder, url)


def report(comparisons: Sequence[Comparison], out: Path) -> None:
    show(comparisons)
    write_json(out / "serve_check.json", {"routes": [{**asdict(one), "equal": one.equal} for one in comparisons]})


def show(comparisons: Sequence[Comparison]) -> None:
    """A table, every difference, and what ties do not explain."""
    table = Table("route", "prompt", "equal token ids", "correct", "in results.json")
    for one in comparisons:
        table.add_row(
            one.route,
            one.prompt,
            f"{one.equal} of {one.total}",
            str(one.correct),
            "–" if one.reported is None else str(one.reported),
        )
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


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serving-python", type=Path, help="the python of an environment with vLLM")
    parser.add_argument("--model", help="instead of the embedded one: a folder, a GGUF file, or a hub id")
    parser.add_argument("--placements", nargs="+", choices=PLACEMENTS, default=PLACEMENTS)
    parser.add_argument("--examples", type=int, default=100, help="test rows per route")
    parser.add_argument("--steps", type=int, default=15, help="optimiser steps")
    parser.add_argument("--out", type=Path, default=Path("outputs/serving"))
    parser.add_argument("settings", nargs="*", help="of embedgrad optimize, as task=reviews prompt=sentiment")
    args = parser.parse_args()
    args.serving_python = args.serving_python and args.serving_python.absolute()
    args.out = args.out.absolute()
    return args


if __name__ == "__main__":
    sys.exit(main())
