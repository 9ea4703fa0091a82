"""Log-likelihoods of several tokens where each token of a target is predicted, without ever keeping all logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from embedgrad_cli.core.kernels.frozen_head_loss import LOGIT_ROWS, frozen_head_likelihoods
from embedgrad_cli.core.kernels.placed import placed


@dataclass(frozen=True)
class States:
    """What a model gives at some positions: the last hidden states, or logits where its head is not plain.

    Args:
        values: `[n, hidden_size]`, or `[n, vocabulary]`.
        layer: the output layer that hidden states still have to go through; None: they are logits.
    """

    values: Tensor
    layer: torch.nn.Linear | None = None

    def logits(self) -> Tensor:
        """All of them at once, `[n, vocabulary]`."""
        return self.values if self.layer is None else linear(self.values, self.layer.weight, self.layer.bias)

    def likelihoods(self, ids: Tensor) -> Tensor:
        """Log-likelihoods of the tokens `ids` `[n, k]`: the same shape, float32, with gradient."""
        ids = placed(ids, self.values.device)
        if self.layer is not None:
            return frozen_head_likelihoods(self.values, self.layer, ids)
        logits = self.values.float()
        return logits.gather(1, ids) - logits.logsumexp(1, keepdim=True)

    @torch.no_grad()
    def likeliest(self, k: int, always: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """The `k` likeliest tokens at each position, likeliest first, and their log-likelihoods: both `[n, k]`.

        Args: always: ids that are among them at each position, whatever is likelier.
        """
        found = list[tuple[Tensor, Tensor]]()
        for start in range(0, len(self.values), LOGIT_ROWS):
            part = self.values[start : start + LOGIT_ROWS]
            likelihoods = States(part, self.layer).logits().float().log_softmax(-1)
            ranked = likelihoods.clone()
            for row, wanted in enumerate(always[start : start + LOGIT_ROWS]):
                ranked[row, list(wanted)] = torch.inf
            ids = ranked.topk(min(k, ranked.shape[1])).indices
            values, order = likelihoods.gather(1, ids).sort(dim=1, descending=True, stable=True)
            found.append((ids.gather(1, order), values))
        return torch.cat([ids for ids, _ in found]), torch.cat([values for _, values in found])
