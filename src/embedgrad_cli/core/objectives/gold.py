"""The gold target: what a row's author wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from embedgrad_cli.core.objectives.objective import Passes
from embedgrad_cli.core.text.marked_tokens import Example


@dataclass(frozen=True)
class Gold:
    """The gold target's negative log-likelihood, the mean over the target tokens of a batch:

        loss = -1/N Σ_rows Σ_t log p(y_t | x, y_<t)

    for rows x with targets y of N tokens in all: language modelling's, and that of soft prompts since prompt tuning
    (Lester et al. 2021, arXiv 2104.08691).
    """

    longest: int = 0

    def num_terms(self, batch: Sequence[Example]) -> int:
        return sum(len(example.target) for example in batch)

    def num_tokens(self, example: Example) -> int:
        return len(example.target)

    def total(self, batch: Sequence[Example], passes: Passes) -> Tensor:
        return passes.target_losses().sum()
