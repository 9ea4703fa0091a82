"""What an objective is: an equation over numbers that the model's passes give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from embedgrad_cli.core.text.marked_tokens import Example

Labels = Sequence[tuple[int, ...]]  # the token ids of each choice of one row


class Passes(Protocol):
    """What an objective may ask about the rows of a micro-batch. `core.passes.forward` computes it, with gradient."""

    def target_losses(self) -> Tensor:
        """Negative log-likelihood of every target token, row by row: `[total target length]`, float32."""

    def token_likelihoods(self, ids: Tensor) -> Tensor:
        """Log-likelihoods of some tokens where each target token is predicted: `[total target length, k]`, float32.

        Args: ids: their vocabulary ids, of the same shape; row by row as in `target_losses`.
        """

    def choice_scores(self, labels: Sequence[Labels], absolute: bool, temperature: float = 1.0) -> Tensor:
        """Log-likelihood of every choice of every row: `[rows, most choices]`, float32; -inf where a row has fewer.

        Args:
            absolute: False lets the choices of a row all lack one number, which a softmax over them does not miss.
            temperature: each token's is that of softmax(logits / temperature).
        """


class Objective(Protocol):
    """A loss: the sum of `total` over the micro-batches of a batch, over `num_terms` of the batch."""

    @property
    def longest(self) -> int:
        """Tokens that must fit after a conversation, beside its target."""

    def num_terms(self, batch: Sequence[Example]) -> int:
        """What the total of a batch is divided by."""

    def num_tokens(self, example: Example) -> int:
        """How many tokens are computed of a row after its conversation, about: micro-batches are cut by it."""

    def total(self, batch: Sequence[Example], passes: Passes) -> Tensor:
        """The summed losses of a micro-batch, a scalar with its graph."""
