"""Token sequences of a batch, packed (one after the other) or padded (one below the other), and the way between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Token sequences, not all of them empty. Padding stands on the right.

    Args:
        tokens: packed, `[total]`.
        mask: `[batch, width]`, True where a token is real.
        places: of the packed tokens in the flattened padded batch, `[total]`.
    """

    tokens: Tensor
    mask: Tensor
    places: Tensor

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]], device: torch.device) -> Rows:
        lengths = torch.tensor([len(sequence) for sequence in sequences])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        tokens = torch.tensor(list(chain.from_iterable(sequences)))
        return cls(tokens.to(device), mask.to(device), mask.flatten().nonzero().squeeze(1).to(device))

    @cached_property
    def sources(self) -> Tensor:
        """For every place of the flattened padded batch a packed token: its own, or any where padding stands."""
        return (self.mask.flatten().long().cumsum(0) - 1).clamp(min=0)

    @property
    def padded(self) -> Tensor:
        """The tokens `[batch, width]`, with zeros as padding."""
        everywhere = self.tokens.new_zeros(self.mask.numel())
        return everywhere.index_copy(0, self.places, self.tokens).view_as(self.mask)

    def spread(self, packed: Tensor) -> Tensor:
        """`[1, heads, total, n]` → `[batch, heads, width, n]`, arbitrary where padding stands."""
        return packed.squeeze(0).index_select(1, self.sources).unflatten(1, self.mask.shape).transpose(0, 1)

    def pack(self, spread: Tensor) -> Tensor:
        """`[batch, heads, width, n]` → `[1, heads, total, n]`"""
        return spread.transpose(0, 1).flatten(1, 2).index_select(1, self.places).unsqueeze(0)
