"""Batches in a reproducible order, and micro-batches of similar length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from math import ceil
from typing import TypeVar

import torch

from embedgrad_cli.core.passes.sampling import seeded

T = TypeVar("T")

# Tokens in one packed forward pass, about. On 2 CPU cores, scripts/bench_step.py and a batch of 128 rows were fastest
# with 700 to 900: more leave the processor's caches, fewer leave its cores waiting.
PASS_TOKENS = 1024

# What one more forward pass costs, in token positions. On 2 CPU cores, scripts/bench_step.py was fastest between 48
# and 96; without any cost, or with 192, its last row took up to a quarter longer.
PASS_COST = 64


def training_batches(
    examples: Sequence[T],
    batch_size: int,
    seed: int,
    first_step: int,
    tokens_per_batch: int | None = None,
    length: Callable[[T], int] = lambda example: 1,
) -> Iterator[list[T]]:
    """Endless batches, shuffled anew in every epoch, from step `first_step` on.

    The order depends on the seed and the epoch alone, so a resumed run sees what an uninterrupted one would have. A
    batch is full with `batch_size` examples, or before the next example would exceed `tokens_per_batch`; the last one
    of an epoch may be short: no example is seen twice in an epoch.
    """
    step = 0
    for epoch in count():
        generator = seeded(seed * 1_000_003 + epoch)
        batch: list[T] = []
        tokens = 0
        for index in [*torch.randperm(len(examples), generator=generator).tolist(), None]:
            size = 0 if index is None else length(examples[index])
            over = tokens_per_batch is not None and tokens + size > tokens_per_batch
            if batch and (index is None or over or len(batch) == batch_size):
                if step >= first_step:
                    yield batch
                batch, tokens, step = [], 0, step + 1
            if index is not None:
                batch.append(examples[index])
                tokens += size


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
    # The least cost of the first `end` rows, and where its last micro-batch begins.
    best, begin_of = [0.0], [0]
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


def split_packed(lengths: Sequence[int], max_size: int | None = None) -> list[list[int]]:
    """Split a batch whose rows are packed, and so cost nothing for their differences, into passes of one size.

    Args, Returns: as for `split_by_length`.
    """
    rows = len(lengths)
    parts = min(rows, max(ceil(sum(lengths) / PASS_TOKENS), ceil(rows / (max_size or rows))))
    order = sorted(range(rows), key=lambda i: (lengths[i], i))
    return [order[rows * part // parts : rows * (part + 1) // parts] for part in range(parts)]
