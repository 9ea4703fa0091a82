"""Exports in the engines they are for: token ids of vLLM, transformers and PEFT beside embedgrad's own greedy decoding.

    python scripts/serve_check.py --serving-python .venv-serving/bin/python [--placements system] [--examples N]

Needs an environment with vLLM (`make test-serving` makes one) and nothing from outside: the model is the embedded one.
Prints a table and every difference, writes them to DIR/serve_check.json, and ends with 1 if a difference is not a tie.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from rich.console import Console
from rich.table import Table

from embedgrad_cli import assets
from embedgrad_cli.cli import main as embedgrad
from embedgrad_cli.run_directory import write_json
from serving import routes
from serving.compare import Comparison, Reference, compare
from serving.recipes import run_recipe
from serving.reference import reference_of
from serving.server import vllm_server

PLACEMENTS = ("system", "before-query")
FORMATS = ("model", "peft", "embeds")
EMBEDS_FLAGS = ("--enable-prompt-embeds", "--chat-template-content-format", "string")
console = Console(highlight=False)


def main() -> int:
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leave by way of the servers' clean-up
    shutil.rmtree(args.out, ignore_errors=True)
    for placement in args.placements:
        prepare(args.out / placement, placement, args.steps, args.examples)
    references = {placement: reference_of(args.out / placement, args.examples) for placement in args.placements}
    comparisons = []
    for one in chain(in_process(args.out, references), served(args.out, references, args.serving_python)):
        console.print(f"{one.route}: {one.equal} of {one.total} equal", markup=False)
        comparisons.append(one)
    accuracies = {name: reported_accuracy(args.out / name) for name in args.placements}
    report(comparisons, accuracies, args.out)
    return 0 if all(comparison.is_explained for comparison in comparisons) else 1


def prepare(folder: Path, placement: str, steps: int, examples: int) -> None:
    """A prompt and its exports, made by the command line. `folder` is laid out like the recipes of docs/serving.md."""
    run = [f"template={placement}", f"train.steps={steps}", "task.split.num_validation=50", "device=cpu"]
    call(["optimize", *run, f"task.split.num_test={examples}", f"output_dir={folder}"])
    for name in FORMATS:
        call(["export", f"artifact={folder}/prompt.safetensors", f"format={name}", f"output_dir={folder}/{name}"])


def call(command: list[str]) -> None:
    if embedgrad(command) != 0:
        sys.exit(f"embedgrad {' '.join(command)} failed")


def in_process(out: Path, references: dict[str, Reference]) -> Iterator[Comparison]:
    """transformers and PEFT, in this environment."""
    for placement, reference in references.items():
        folder, queries = out / placement, [row.query for row in reference.rows]
        tokens = routes.max_new_tokens(folder)
        yield compare(f"transformers + model, {placement}", routes.transformers(folder, queries, tokens), reference)
        yield compare(f"PEFT + peft, {placement}", routes.peft(folder, queries, tokens), reference)


def served(out: Path, references: dict[str, Reference], python: Path) -> Iterator[Comparison]:
    """vLLM, once with each exported model and once with the model as it is; then the recipes on the same servers."""
    for placement, reference in references.items():
        folder, queries = out / placement, [row.query for row in reference.rows]
        with vllm_server(python, folder / "model", out / f"vllm-{placement}.log") as url:
            yield compare(f"vLLM chat + model, {placement}", routes.chat(folder, queries, url), reference)
            if placement == next(iter(references)):
                run_recipe("vLLM: chat", folder, url)
    model = Path(assets.resolve("embedded:tiny"))
    with vllm_server(python, model, out / "vllm-embeds.log", *EMBEDS_FLAGS) as url:
        for placement, reference in references.items():
            folder, queries = out / placement, [row.query for row in reference.rows]
            found = routes.completions(folder, queries, url)
            yield compare(f"vLLM completions + embeds, {placement}", found, reference)
            yield compare(f"vLLM chat parts + embeds, {placement}", routes.parts(folder, queries, url), reference)
            run_recipe("vLLM: embeddings", folder, url)


def reported_accuracy(folder: Path) -> float:
    return json.loads((folder / "results.json").read_text())["arms"]["optimized"]["accuracy"]


def report(comparisons: list[Comparison], accuracies: dict[str, float], out: Path) -> None:
    table = Table("route", "equal token ids", "accuracy", "in results.json")
    for one in comparisons:
        expected = accuracies[one.route.rpartition(", ")[2]]
        table.add_row(one.route, f"{one.equal} of {one.total}", f"{one.accuracy:.1%}", f"{expected:.1%}")
    console.print(table)
    for one in comparisons:
        for d in one.differences:
            console.print(
                f"{one.route}, {d['id']}: {d['found']!r} instead of {d['expected']!r} at token {d['place']}, "
                f"logits {d['gap']:.1e} apart",
                markup=False,
            )
    rows = [{**asdict(one), "equal": one.equal} for one in comparisons]
    write_json(out / "serve_check.json", {"results.json": accuracies, "routes": rows})


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
