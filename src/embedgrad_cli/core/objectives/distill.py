"""What another prompt makes of the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from embedgrad_cli.core.kernels.placed import placed
from embedgrad_cli.core.objectives.objective import Passes
from embedgrad_cli.core.text.marked_tokens import Example

SMALLEST_REST = 0.01  # below it the rest is the difference of two numbers close to 1, and rounding is most of it


@dataclass(frozen=True)
class SoftTargets:
    """The teacher's k likeliest tokens where each token of an answer is predicted.

    Args:
        ids: `[answer length, k]`.
        likelihoods: their log-likelihoods, float32, of the same shape.
    """

    ids: Tensor
    likelihoods: Tensor


@dataclass(frozen=True)
class Distill:
    """The divergence of the prompt's next token from the teacher's, the mean over the teacher's N answer tokens in a
    batch:

        loss = 1/N Σ_rows Σ_t [ Σ_k q_k (log q_k - log p_k) + q_rest (log q_rest - log p_rest) ]

    for the k tokens that the teacher finds likeliest after its own answer so far, with the probabilities q under the
    teacher and p under the prompt, and all other tokens together as one event: q_rest = 1 - Σ_k q_k. So where the
    prompt predicts what the teacher does, loss and gradient are 0 whatever k is. In the two logarithms a rest is
    at least `SMALLEST_REST`.

    A teacher's tokens with their log-probabilities as the targets of a short prompt are those of Cartridges (Eyuboglu
    et al. 2025, arXiv 2506.06266), which train keys and values, and leave out the rest; what that costs a student is in
    Anshumann et al. 2025 (arXiv 2503.16870).

    Args:
        rows: by the id of the example.
    """

    rows: Mapping[str, SoftTargets]
    longest: int = 0

    def num_terms(self, batch: Sequence[Example]) -> int:
        return sum(len(example.target) for example in batch)

    def num_tokens(self, example: Example) -> int:
        return len(example.target)

    def total(self, batch: Sequence[Example], passes: Passes) -> Tensor:
        rows = [self.rows[example.id] for example in batch]
        ours = passes.token_likelihoods(torch.cat([row.ids for row in rows]))
        theirs = placed(torch.cat([row.likelihoods for row in rows]), ours.device)
        shares = theirs.exp()
        rest, our_rest = ((1 - likelihoods.exp().sum(1)).clamp(min=0) for likelihoods in (theirs, ours))
        of_rest = rest * (_log(rest) - _log(our_rest))
        return (shares * (theirs - ours)).sum() + of_rest.sum()


def _log(rest: Tensor) -> Tensor:
    return rest.clamp(min=SMALLEST_REST).log()
