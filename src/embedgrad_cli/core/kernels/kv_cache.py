"""What has been computed of a batch, and the caches in which the model is given it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache

from embedgrad_cli.core.kernels.packed_batch import Rows

Layers = list[tuple[Tensor, Tensor]]  # keys and values per layer, each [batch, heads, width, head_size]


@dataclass
class Past:
    """Keys and values that a batch has so far.

    Args:
        layers: of each row; empty where nothing has been computed.
        mask: `[batch, width of layers]`, True where a token is real.
        shared: what stands in front of every row, at batch size 1; attention reads it without a copy per row.
    """

    layers: Layers
    mask: Tensor
    shared: Layers = field(default_factory=list)

    @property
    def shared_width(self) -> int:
        return self.shared[0][0].shape[2] if self.shared else 0

    @property
    def width(self) -> int:
        return self.shared_width + self.mask.shape[1]

    def expand(self, batch_size: int, in_place: bool) -> Past:
        """A single row's past for every row of a batch, without a copy; `in_place`: as what they share."""
        if in_place and self.layers:
            return Past([], self.mask.new_ones(batch_size, 0), self.layers)
        layers = [(k.expand(batch_size, -1, -1, -1), v.expand(batch_size, -1, -1, -1)) for k, v in self.layers]
        return Past(layers, self.mask.expand(batch_size, -1))

    def first(self, count: int) -> Past:
        return Past([(k[:count], v[:count]) for k, v in self.layers], self.mask[:count], self.shared)

    def select(self, rows: Tensor) -> Past:
        return Past([(k[rows], v[rows]) for k, v in self.layers], self.mask[rows], self.shared)

    def compact(self) -> Past:
        """Every row's real tokens moved to the left, and no wider than the longest row needs."""
        width = int(self.mask.sum(dim=1).max())
        order = self.mask.long().argsort(dim=1, descending=True, stable=True)[:, :width]

        def moved(tensor: Tensor) -> Tensor:
            index = order[:, None, :, None].expand(-1, tensor.shape[1], -1, tensor.shape[3])
            return tensor.gather(2, index)

        return Past([(moved(k), moved(v)) for k, v in self.layers], self.mask.gather(1, order), self.shared)

    def join(self, other: Past) -> Past:
        """The rows of both, one below the other; the narrower ones are padded on the right."""
        width = max(self.mask.shape[1], other.mask.shape[1])

        def both(a: Tensor, b: Tensor) -> Tensor:
            return torch.cat([pad(t, (0, 0, 0, width - t.shape[2])) for t in (a, b)])

        layers = [(both(k, k2), both(v, v2)) for (k, v), (k2, v2) in zip(self.layers, other.layers, strict=True)]
        masks = [pad(past.mask, (0, width - past.mask.shape[1])) for past in (self, other)]
        return Past(layers, torch.cat(masks), self.shared)


class PastCache(DynamicCache):
    """A `transformers` cache that begins with the tensors of a past themselves, not copies of them.

    Args:
        read_only: gives each layer its past with the new keys and values behind it, and keeps only the past; so a
            layer that runs a second time finds what it found the first time.
    """

    def __init__(self, past: Past, rows: Rows, read_only: bool = False) -> None:
        super().__init__()
        self.past, self.rows, self.read_only = past, rows, read_only and bool(past.layers)
        for index, (keys, values) in enumerate(past.layers):
            super().update(keys[:1, :, :0], values[:1, :, :0], index)  # creates the layer
            held: Any = self.layers[index]
            held.keys, held.values = keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.read_only:
            return super().update(key_states, value_states, layer_idx, *args, **kwargs)
        return _behind(self.past, layer_idx, key_states, value_states)

    def extended_past(self) -> Past:
        """The past with all that the cache was given since."""
        layers: list[Any] = self.layers
        mask = torch.cat([self.past.mask, self.rows.mask], dim=1)
        return Past([] if self.read_only else [(layer.keys, layer.values) for layer in layers], mask)


@dataclass(frozen=True)
class Behind:
    """What stands in front of a layer's packed queries beside their own keys: see `shared_prefix_attention`.

    Args:
        trunk: keys and values at batch size 1.
        rows: the queries' rows.
        mask: `[batch, 1, width, own width]`, added to scores; None is causal.
    """

    trunk: tuple[Tensor, Tensor]
    rows: Rows
    mask: Tensor | None


class SharedCache(DynamicCache):
    """A cache for packed rows behind a trunk that they share.

    To the model it seems empty, so the model takes the packed tokens for one sequence and prepares nothing for what
    stands in front of them. That travels on the keys, as `keys.behind`, to `shared_prefix_attention`.
    """

    def __init__(self, past: Past, rows: Rows, dtype: torch.dtype) -> None:
        super().__init__()
        self.past, self.rows, self.grown = past, rows, dict[int, tuple[Tensor, Tensor]]()
        self.mask = _added_mask(past.mask, rows.mask, dtype) if past.mask.shape[1] else None

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        keys, values = self.rows.spread(key_states), self.rows.spread(value_states)
        keys, values = self.grown[layer_idx] = _behind(self.past, layer_idx, keys, values)
        keys.behind = Behind(self.past.shared[layer_idx], self.rows, self.mask)  # type: ignore[attr-defined]
        return keys, values

    def extended_past(self) -> Past:
        mask = torch.cat([self.past.mask, self.rows.mask], dim=1)
        return Past([self.grown[index] for index in range(len(self.grown))], mask, self.past.shared)


def _behind(past: Past, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """New keys and values behind those that a layer has."""
    if not past.layers:
        return keys, values
    past_keys, past_values = past.layers[layer]
    return torch.cat([past_keys, keys], dim=-2), torch.cat([past_values, values], dim=-2)


def _added_mask(past: Tensor, new: Tensor, dtype: torch.dtype) -> Tensor:
    """Zero where a token may look, `[batch, 1, width, past width + width]`: at what is real, and not behind itself."""
    width = new.shape[1]
    before = past[:, None, None].expand(-1, -1, width, -1)
    own = torch.ones(width, width, dtype=torch.bool, device=new.device).tril().expand(len(new), 1, -1, -1)
    return torch.zeros_like(seen := torch.cat([before, own], dim=-1), dtype=dtype).masked_fill_(~seen, -torch.inf)
