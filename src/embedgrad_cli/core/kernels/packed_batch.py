"""Token sequences of a batch, packed (one after the other) or padded (one below the other), and the way between.

`pad` and `unpad` are FlashAttention's words for that way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import torch
from torch import Tensor
from torch.nn.functional import pad

from embedgrad_cli.core.kernels.placed import placed


@dataclass(frozen=True)
class PackedBatch:
    """Token sequences, not all of them empty.

    Args:
        tokens: packed, `[total]`.
        mask: `[batch, width]`, True where a token is real.
        token_index: where each packed token stands in the flattened padded batch, `[total]`.
    """

    tokens: Tensor
    mask: Tensor
    token_index: Tensor

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]], device: torch.device, left: bool = False) -> PackedBatch:
        """Pack sequences; padding, where they are padded, stands on the right, or on the left of each."""
        lengths = [len(sequence) for sequence in sequences]
        width = max(lengths)
        mask = torch.arange(width) < torch.tensor(lengths)[:, None]
        begins = [row * width + (width - length if left else 0) for row, length in enumerate(lengths)]
        index = [place for begin, length in zip(begins, lengths, strict=True) for place in range(begin, begin + length)]
        tokens = list(chain.from_iterable(sequences))
        return cls(placed(tokens, device), placed(mask.flip(1) if left else mask, device), placed(index, device))

    @cached_property
    def pad_index(self) -> Tensor:
        """For every position of the flattened padded batch a packed token: its own, or any where padding stands."""
        return (self.mask.flatten().long().cumsum(0) - 1).clamp(min=0)

    @cached_property
    def offsets(self) -> Tensor:
        """Where each row begins among the packed tokens, and where the last one ends: `[batch + 1]` int32."""
        return pad(self.mask.sum(1).cumsum(0), (1, 0)).int()

    @property
    def padded_tokens(self) -> Tensor:
        """The tokens `[batch, width]`, with zeros as padding."""
        flat = self.tokens.new_zeros(self.mask.numel())
        return flat.index_copy(0, self.token_index, self.tokens).view_as(self.mask)

    def pad(self, packed: Tensor) -> Tensor:
        """`[1, heads, total, n]` → `[batch, heads, width, n]`, arbitrary where padding stands."""
        return packed.squeeze(0).index_select(1, self.pad_index).unflatten(1, self.mask.shape).transpose(0, 1)

    def unpad(self, padded: Tensor) -> Tensor:
        """`[batch, heads, width, n]` → `[1, heads, total, n]`"""
        return padded.transpose(0, 1).flatten(1, 2).index_select(1, self.token_index).unsqueeze(0)
