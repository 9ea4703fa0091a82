"""Answers of the prompt's own, by how much better they were than the others to the same row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from embedgrad_cli.core.kernels.placed import placed
from embedgrad_cli.core.objectives.objective import Passes
from embedgrad_cli.core.text.marked_tokens import Example


@dataclass(frozen=True)
class RowAnswers:
    """Answers to one row, none of them empty and no two alike, and what the log-likelihood of each is weighted by."""

    ids: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...]

    @classmethod
    def of(cls, answers: Sequence[tuple[int, ...]], advantages: Sequence[float]) -> RowAnswers:
        """Answers that were drawn several times have the sum of their advantages; what has none is left out."""
        summed = defaultdict[tuple[int, ...], float](float)
        for ids, advantage in zip(answers, advantages, strict=True):
            summed[ids] += advantage
        kept = {ids: weight for ids, weight in summed.items() if ids and weight}
        return cls(tuple(kept), tuple(kept.values()))


@dataclass(frozen=True)
class Reward:
    """REINFORCE with a leave-one-out baseline, the mean over the N answers that were drawn for a batch:

        A_i  = r_i - Σ_{j≠i} r_j / (k - 1)
        loss = -1/N Σ_rows Σ_i A_i · Σ_t log p(y_it | x, y_i<t)

    for rows x with k answers y_1, …, y_k of rewards r_1, …, r_k, drawn at the temperature T from the p of the same T:
    softmax(logits / T). Its gradient, the advantages held fixed, is an unbiased estimate of that of minus the mean
    reward (Kool et al. 2019, "Buy 4 REINFORCE Samples, Get a Baseline for Free!"; for language models RLOO, Ahmadian et
    al. 2024, arXiv 2402.14740, where an answer is one action as here). Left out is RLOO's penalty for leaving the
    seed: the trust region bounds the vectors.

    N counts all answers that were drawn. Those of a row whose rewards agree have A_i = 0 and are not among `rows`:
    that changes no sum. An answer's tokens are summed, not averaged: a mean would weigh tokens of long answers less.

    Args:
        rows: of this batch, by the id of the example.
        num_answers: N.
        temperature: T, above 0.
    """

    rows: Mapping[str, RowAnswers]
    num_answers: int
    temperature: float = 1.0

    @property
    def longest(self) -> int:
        return max((len(ids) for row in self.rows.values() for ids in row.ids), default=0)

    def num_terms(self, batch: Sequence[Example]) -> int:
        return self.num_answers

    def num_tokens(self, example: Example) -> int:
        """Of every answer all but its first token, which the conversation's last predicts."""
        return 1 + sum(len(ids) - 1 for ids in self.rows[example.id].ids)

    def total(self, batch: Sequence[Example], passes: Passes) -> Tensor:
        rows = [self.rows[example.id] for example in batch]
        scores = passes.choice_scores([row.ids for row in rows], absolute=True, temperature=self.temperature)
        padded = [[*row.weights, *[0.0] * (scores.shape[1] - len(row.weights))] for row in rows]
        weights = placed(padded, scores.device, scores.dtype)
        # Where a row has fewer answers than another its scores are -inf.
        return -(weights * torch.where(weights == 0, 0.0, scores)).sum()


def leave_one_out(rewards: Sequence[float]) -> list[float]:
    """The advantage of each of two or more answers to a row: its reward less the mean of the others'.

    They add up to zero, but for rounding, and are exactly zero where all rewards agree.
    """
    if len(set(rewards)) == 1:
        return [0.0] * len(rewards)
    total, others = sum(rewards), len(rewards) - 1
    return [reward - (total - reward) / others for reward in rewards]
