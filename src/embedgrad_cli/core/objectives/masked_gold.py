"""The gold target without the tokens that nobody would expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from embedgrad_cli.core.kernels.placed import placed
from embedgrad_cli.core.objectives.objective import Passes
from embedgrad_cli.core.text.marked_tokens import Example


@dataclass(frozen=True)
class MaskedGold:
    """`Gold` on some tokens of the target, the mean over those of a batch:

        loss = -1/N Σ_rows Σ_t m_t log p(y_t | x, y_<t)        N = Σ_rows Σ_t m_t

    with m_t = 1 where p(y_t | x, y_<t) under the seed is at least `objective.mask`, else 0. Masking the tokens of high
    perplexity is from Wu et al. 2025 (arXiv 2501.14315), who train weights on such targets.

    Args:
        kept: m of every example of a batch, by the example; it grows while a run goes on.
    """

    kept: Mapping[Example, tuple[bool, ...]]
    longest: int = 0

    def num_terms(self, batch: Sequence[Example]) -> int:
        return sum(sum(self.kept[example]) for example in batch)

    def num_tokens(self, example: Example) -> int:
        return len(example.target)

    def total(self, batch: Sequence[Example], passes: Passes) -> Tensor:
        losses = passes.target_losses()
        mask = placed([keeps for example in batch for keeps in self.kept[example]], losses.device)
        return losses.masked_fill(~mask, 0.0).sum()
