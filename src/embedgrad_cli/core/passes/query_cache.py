"""Keys and values of what examples hold before their first slot, kept across epochs within a memory budget.

The model is frozen and nothing before the first slot depends on the prompt, so these never change during a run.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from embedgrad_cli.core.kernels.kv_cache import Layers

SHARE_OF_FREE_MEMORY = 0.25  # that the product gives to the cache


class QueryCache:
    """Maps token sequences to the keys and values a forward pass gave for them.

    Args:
        budget: bytes that may be held; what comes later is computed anew each time.
    """

    def __init__(self, budget: int) -> None:
        self.budget, self.size = budget, 0
        self._rows: dict[tuple[int, ...], Layers] = {}

    def get(self, tokens: tuple[int, ...]) -> Layers | None:
        return self._rows.get(tokens)

    def put(self, tokens: tuple[int, ...], layers: Layers) -> None:
        """Keep `[1, heads, len(tokens), head_size]` per layer, if the budget allows."""
        size = sum(t.numel() * t.element_size() for pair in layers for t in pair)
        if tokens not in self._rows and self.size + size <= self.budget:
            self._rows[tokens] = [(k.clone(), v.clone()) for k, v in layers]
            self.size += size


def rows_of(layers: Layers, begin: int, lengths: Sequence[int]) -> list[Layers]:
    """Cut a right-padded batch into its rows, each from place `begin` on, without a copy."""
    return [
        [tuple(t[row : row + 1, :, begin : begin + length] for t in pair) for pair in layers]  # type: ignore[misc]
        for row, length in enumerate(lengths)
    ]


def stack(rows: Sequence[Layers]) -> Layers:
    """Rows as one batch, padded with zeros on the right to the longest of them."""
    return [tuple(_stack(tensors) for tensors in zip(*pairs, strict=True)) for pairs in zip(*rows, strict=True)]  # type: ignore[misc]


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    first, width = tensors[0], max(t.shape[2] for t in tensors)
    batch = first.new_zeros(len(tensors), first.shape[1], width, first.shape[3])
    for row, tensor in enumerate(tensors):
        batch[row, :, : tensor.shape[2]] = tensor[0]
    return batch
