"""Batches in a reproducible order, and micro-batches of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch

T = TypeVar("T")

# What one more forward pass costs, in token positions. On 2 CPU cores, scripts/bench_step.py was fastest between 48
# and 96; without any cost, or with 192, its last row took up to a quarter longer.
PASS_COST = 64


def training_batches(examples: Sequence[T], batch_size: int, seed: int, first_step: int) -> Iterator[list[T]]:
    """Endless batches, shuffled anew in every epoch, from step `first_step` on.

    The order depends on the seed and the epoch alone, so a resumed run sees what an uninterrupted one would have. The
    last batch of an epoch is short when the examples do not divide evenly: no example is seen twice in an epoch.
    """
    per_epoch = -(-len(examples) // batch_size)
    epoch, skip = divmod(first_step, per_epoch)
    while True:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(examples), generator=generator).tolist()
        for start in range(skip * batch_size, len(examples), batch_size):
            yield [examples[i] for i in order[start : start + batch_size]]
        epoch, skip = epoch + 1, 0


def split_by_length(lengths: Sequence[int], max_size: int | None = None) -> list[list[int]]:
    """Split a batch into micro-batches of similar length, at the least cost.

    The cost of a micro-batch is its padded size, rows x longest row, plus `PASS_COST`. Sorted by length, the best
    split is into runs, found by dynamic programming.

    Args:
        lengths: of each row, in tokens.
        max_size: most rows in one micro-batch; None leaves it to the costs.

    Returns: the row numbers of each micro-batch, shortest rows first.
    """
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    best, begin_of = (
        [0.0],
        [0],
    )  # the least cost of the first `end` rows, and where its last micro-batch begins
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        begins = range(max(0, end - (max_size or end)), end)
        begin = min(begins, key=lambda b: best[b] + (end - b) * longest)
        best.append(best[begin] + (end - begin) * longest + PASS_COST)
        begin_of.append(begin)
    parts, end = [], len(order)
    while end:
        parts.append(order[begin_of[end] : end])
        end = begin_of[end]
    return parts[::-1]
