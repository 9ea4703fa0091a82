"""How time and peak memory of a step grow with prompt length, batch and model, beside PEFT's.

    python scripts/bench_growth.py [--json FILE] [--plot FILE.svg] [--prompts 5 … 800] [--batches 1 … 256]
    python scripts/bench_growth.py --device cuda --models FILE FILE     # config.json of real models

One quantity varies, the others stay at a prompt of 100 tokens (20 where the batch varies, so that PEFT's logits fit),
queries of 25 on average, one target token, 8 examples, and the model of --size or --config. Every point is a row of
`bench_step.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from bench.batches import Shape
from bench.measure import matmul_rate
from bench.models import ModelSpec
from bench.output import parser, show, spec_of
from bench_step import compare

BASE = Shape(100, 25, 1, 8)
MANY_ROWS = replace(BASE, prompt=20)
PROMPTS = [5, 20, 50, 100, 200, 400, 800]
BATCHES = [1, 4, 16, 64, 256]
MODELS = ["5M", "16M", "62M", "128M"]
COLUMNS = [
    *("varied", "prompt", "batch", "parameters", "ratio", "memory_ratio", "grad_error"),
    *("seconds", "peft_seconds", "memory", "peft_memory"),
]


def points(
    spec: ModelSpec, prompts: Sequence[int], batches: Sequence[int], models: Sequence[str]
) -> Iterator[tuple[str, ModelSpec, Shape]]:
    """What varies, and the model and shape of each point."""
    yield from (("prompt", spec, replace(BASE, prompt=prompt)) for prompt in prompts)
    yield from (("batch", spec, replace(MANY_ROWS, batch=batch)) for batch in batches)
    yield from (("parameters", replace(spec, shape=model), BASE) for model in models)


def measure(plan: Iterator[tuple[str, ModelSpec, Shape]], repeats: int) -> list[dict[str, Any]]:
    rows = []
    for spec, of_one_model in groupby(plan, key=lambda point: point[1]):
        network, rate = spec.make(), matmul_rate(spec.device, spec.dtype)
        parameters = sum(p.numel() for p in network.parameters())
        for varied, _, shape in of_one_model:
            rows.append({"varied": varied, "parameters": parameters, **compare(spec, network, shape, repeats, rate)})
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    arguments_of = parser(__doc__)
    arguments_of.add_argument("--plot", type=Path, metavar="FILE", help="draw the rows into this SVG file")
    arguments_of.add_argument("--prompts", type=int, nargs="*", default=PROMPTS, metavar="N")
    arguments_of.add_argument("--batches", type=int, nargs="*", default=BATCHES, metavar="N")
    arguments_of.add_argument("--models", nargs="*", default=MODELS, metavar="MODEL", help="sizes or config files")
    options = arguments_of.parse_args(arguments)
    rows = measure(points(spec_of(options), options.prompts, options.batches, options.models), options.repeats)
    show("growth of one step", rows, COLUMNS, options.json)
    if options.plot:
        from bench.plot import plot_growth  # needs matplotlib, which nothing else here does

        plot_growth(rows, options.plot)


if __name__ == "__main__":
    main()
