"""One optimiser step against PEFT prompt tuning: time, memory, operations; same model, same batches.

    python scripts/bench_step.py [--json FILE] [--repeats 5]
    python scripts/bench_step.py --device cuda --config FILE      # random weights in the shape of that config.json

Each row is one shape: tokens of the prompt, mean tokens of the query, tokens of the target, examples per batch.
Queries are ragged (half to one and a half times the mean). PEFT gets the same prompt, the same right-padded batch, and
labels on the target alone. With the prompt after the query, our step is one of the second epoch or later (queries are
kept); PEFT can only put a prompt in front, so its time is that of a prefix of the same length, and our gradient is
compared with the plain forward's.

ratio          PEFT's seconds over ours; both are medians of rounds that alternate, on a CPU in a process each
floor_ratio    the largest ratio that counting operations allows (core/passes/operations.py)
memory_ratio   our peak memory beyond what was held before the step over PEFT's; on a CPU in a fresh process each
grad_error     relative difference of the gradients
eight_passes   our step in at least eight micro-batches over our step in its best split
share, peft_share   of the measured rate of a large matrix product: needed operations, or the plain path's, per second
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from bench.batches import Shape, make_vectors
from bench.measure import added_memory, in_fresh_process, matmul_rate, medians, medians_apart, unless_out_of_memory
from bench.models import ModelSpec
from bench.output import machine, parser, ratio, show, spec_of
from bench.steps import Step, our_step, peft_step, plain_gradient
from embedgrad_cli.core.passes.operations import Costs, needed_operations, plain_operations
from embedgrad_cli.core.passes.query_cache import QueryCache

SHAPES = [
    Shape(20, 25, 1, 32),
    Shape(100, 25, 1, 32),
    Shape(400, 60, 1, 16),
    Shape(30, 60, 120, 8),
    Shape(30, 60, 120, 8, "after"),
]
QUERY_BUDGET = 2**33  # bytes, more than any shape here needs
COLUMNS = [
    *("prompt", "query", "target", "batch", "placement", "ratio", "floor_ratio", "memory_ratio", "grad_error"),
    *("eight_passes", "share", "peft_share"),
]


def compare(spec: ModelSpec, network: Any, shape: Shape, repeats: int, rate: float) -> dict[str, Any]:
    """One row; `rate` is the machine's, in operations per second. What PEFT has no memory for is None."""
    vocabulary, vectors = network.config.vocab_size, make_vectors(shape.prompt, network.config.hidden_size)
    examples, in_front = shape.examples(vocabulary), shape.before.examples(vocabulary)
    ours = our_step(network, examples, vectors, queries=QueryCache(QUERY_BUDGET))
    peft = peft_step(network, in_front, vectors)
    gradients, theirs = [ours(), ours()], unless_out_of_memory(peft)  # our first step fills the cache
    expected = theirs if shape.placement == "before" else plain_gradient(network, examples, vectors)
    seconds, peft_seconds = step_seconds(spec, shape, [ours, peft], repeats, theirs is not None)
    costs = Costs.of(network)
    needed, plain = needed_operations(costs, examples, queries_kept=True), plain_operations(costs, in_front)
    memory, peft_memory = (step_memory(spec, network, shape, side) for side in ("ours", "peft"))
    return {
        **vars(shape),
        "ratio": ratio(peft_seconds, seconds),
        "floor_ratio": ratio(plain, needed),
        "memory_ratio": ratio(memory, peft_memory),
        "grad_error": largest_error(gradients, expected),
        "share": share(needed, seconds, rate),
        "peft_share": share(plain, peft_seconds, rate),
        "seconds": seconds,
        "peft_seconds": peft_seconds,
        "memory": memory,
        "peft_memory": peft_memory,
        "operations": needed,
        "peft_operations": plain,
        "matmul_rate": rate,
        "machine": machine(spec),
    }


def largest_error(gradients: Sequence[Tensor], expected: Tensor | None) -> float | None:
    if expected is None:
        return None
    return max(((gradient - expected).norm() / expected.norm()).item() for gradient in gradients)


def step_seconds(
    spec: ModelSpec, shape: Shape, steps: Sequence[Step], repeats: int, peft_fits: bool
) -> tuple[float, float | None]:
    """Ours and PEFT's, in turns; on a CPU each in a process of its own."""
    sides = ["ours", "peft"][: 1 + peft_fits]
    if spec.device == "cuda":
        found = medians(steps[: len(sides)], repeats)
    else:
        found = medians_apart([(step_of, (spec, shape, side)) for side in sides], repeats)
    return found[0], found[1] if peft_fits else None


def step_of(spec: ModelSpec, shape: Shape, side: str) -> Step:
    return make_step(spec.make(), shape, side)[0]


def share(operations: int, seconds: float | None, rate: float) -> float | None:
    return operations / seconds / rate if seconds else None


def eight_passes_apart(spec: ModelSpec, network: Any, shape: Shape, repeats: int) -> float | None:
    """`eight_passes`, on a CPU in a fresh process."""
    if spec.device == "cuda":
        return eight_passes(network, shape, repeats)
    return in_fresh_process(eight_passes_here, spec, shape, repeats)


def eight_passes_here(spec: ModelSpec, shape: Shape, repeats: int) -> float | None:
    return eight_passes(spec.make(), shape, repeats)


def eight_passes(network: Any, shape: Shape, repeats: int) -> float | None:
    """Time in at least eight micro-batches over the best of: split as the product would, in at least 2, 4, 8."""
    queries = QueryCache(QUERY_BUDGET)
    examples = shape.examples(network.config.vocab_size)
    vectors = make_vectors(shape.prompt, network.config.hidden_size)
    sizes = [None, *(math.ceil(shape.batch / parts) for parts in (2, 4, 8))]
    steps = [our_step(network, examples, vectors, size, queries) for size in sizes]
    for step in steps:
        step()
    seconds = medians(steps, repeats)
    return ratio(seconds[-1], min(seconds))


def step_memory(spec: ModelSpec, network: Any, shape: Shape, side: str) -> int | None:
    if spec.device == "cuda":
        return unless_out_of_memory(lambda: memory_of(network, shape, side, spec.device))
    return in_fresh_process(memory_in_this_process, spec, shape, side)


def memory_in_this_process(spec: ModelSpec, shape: Shape, side: str) -> int:
    return memory_of(spec.make(), shape, side, spec.device)


def memory_of(network: Any, shape: Shape, side: str, device: str) -> int:
    """Bytes that a step adds at its peak, queries that were kept for it included."""
    tiny, _ = make_step(network, Shape(2, 4, 1, 2), side)
    tiny()  # whatever libraries load or set up at their first step
    step, queries = make_step(network, shape, side)
    if shape.placement == "after" and side == "ours":
        step()
    return queries.size + added_memory(step, device)


def make_step(network: Any, shape: Shape, side: str) -> tuple[Step, QueryCache]:
    vectors, queries = make_vectors(shape.prompt, network.config.hidden_size), QueryCache(QUERY_BUDGET)
    if side == "peft":
        return peft_step(network, shape.before.examples(network.config.vocab_size), vectors), queries
    return our_step(network, shape.examples(network.config.vocab_size), vectors, queries=queries), queries


def main(arguments: Sequence[str] | None = None) -> None:
    arguments_of = parser(__doc__)
    arguments_of.add_argument("--shapes", nargs="+", type=Shape.parse, default=SHAPES, metavar="P,Q,T,B[,after]")
    options = arguments_of.parse_args(arguments)
    spec = spec_of(options)
    network, rate = spec.make(), matmul_rate(spec.device, spec.dtype)
    rows = []
    for shape in options.shapes:
        row = compare(spec, network, shape, options.repeats, rate)
        rows.append({**row, "eight_passes": eight_passes_apart(spec, network, shape, options.repeats)})
    title = f"one step against PEFT: {machine(spec)}, matrix products {rate / 1e9:.0f} GFLOP/s"
    show(title, rows, COLUMNS, options.json)


if __name__ == "__main__":
    main()
