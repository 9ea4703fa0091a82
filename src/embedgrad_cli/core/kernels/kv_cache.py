"""The keys and values that a batch has so far, and the caches in which the model is given them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache

from embedgrad_cli.core.kernels.packed_batch import PackedBatch

Layers = list[tuple[Tensor, Tensor]]  # keys and values per layer, each [batch, heads, width, head_size]
ROOM = 32  # tokens that are written into memory made for them in advance, where rows grow token by token


@dataclass
class KeyValues:
    """Keys and values that a batch has so far.

    Args:
        layers: of each row; empty where nothing has been computed.
        mask: `[batch, width of layers]`, True where a token is real.
        shared_prefix: what stands in front of every row, at batch size 1; attention reads it without a copy per row.
        room: tokens that have memory behind those of `layers`, where rows grow (`growing`); None: they do not.
    """

    layers: Layers
    mask: Tensor
    shared_prefix: Layers = field(default_factory=list)
    room: int | None = None

    @classmethod
    def empty(cls, device: torch.device) -> KeyValues:
        """Of one row of which nothing has been computed."""
        return cls([], torch.ones(1, 0, dtype=torch.bool, device=device))

    @property
    def prefix_width(self) -> int:
        return self.shared_prefix[0][0].shape[2] if self.shared_prefix else 0

    @property
    def width(self) -> int:
        return self.prefix_width + self.mask.shape[1]

    def expand(self, batch_size: int, in_place: bool) -> KeyValues:
        """A single row's for every row of a batch, without a copy; `in_place`: as the prefix that they share."""
        if in_place and self.layers:
            return KeyValues([], self.mask.new_ones(batch_size, 0), self.layers)
        layers = [(k.expand(batch_size, -1, -1, -1), v.expand(batch_size, -1, -1, -1)) for k, v in self.layers]
        return KeyValues(layers, self.mask.expand(batch_size, -1))

    def growing(self) -> KeyValues:
        """The same, to be extended token by token without a copy each time.

        Only without a graph, and only once: another extension of the same would write into the same memory.
        """
        return replace(self, room=self.room or 0)

    def first(self, count: int) -> KeyValues:
        return KeyValues([(k[:count], v[:count]) for k, v in self.layers], self.mask[:count], self.shared_prefix)

    def select(self, rows: Tensor) -> KeyValues:
        layers = [(k[rows.to(k.device)], v[rows.to(v.device)]) for k, v in self.layers]  # each where its layer is
        return KeyValues(layers, self.mask[rows], self.shared_prefix)

    def compact(self) -> KeyValues:
        """Every row's real tokens moved to the left, and no wider than the longest row needs."""
        width = int(self.mask.sum(dim=1).max())
        order = self.mask.long().argsort(dim=1, descending=True, stable=True)[:, :width]

        def moved(tensor: Tensor) -> Tensor:
            index = order[:, None, :, None].expand(-1, tensor.shape[1], -1, tensor.shape[3])
            return tensor.gather(2, index.to(tensor.device))

        layers = [(moved(k), moved(v)) for k, v in self.layers]
        return KeyValues(layers, self.mask.gather(1, order), self.shared_prefix)

    def join(self, other: KeyValues) -> KeyValues:
        """The rows of both, one below the other; the narrower ones are padded on the right."""
        width = max(self.mask.shape[1], other.mask.shape[1])

        def both(a: Tensor, b: Tensor) -> Tensor:
            return torch.cat([pad(t, (0, 0, 0, width - t.shape[2])) for t in (a, b)])

        layers = [(both(k, k2), both(v, v2)) for (k, v), (k2, v2) in zip(self.layers, other.layers, strict=True)]
        masks = [pad(mask, (0, width - mask.shape[1])) for mask in (self.mask, other.mask)]
        return KeyValues(layers, torch.cat(masks), self.shared_prefix)


class PrefixCache(DynamicCache):
    """A `transformers` cache that begins with the given keys and values themselves, not copies of them.

    Args:
        key_values: what each row of the padded batch has.
        batch: what is computed now.
        read_only: gives each layer what it has with the new keys and values appended, and keeps only what it had; so a
            layer that runs a second time reads what it read the first time.
    """

    def __init__(self, key_values: KeyValues, batch: PackedBatch, read_only: bool = False) -> None:
        super().__init__()
        self.key_values, self.batch = key_values, batch
        self.read_only = read_only
        for index, (keys, values) in enumerate(key_values.layers):
            super().update(keys[:1, :, :0], values[:1, :, :0], index)  # creates the layer
            layer: Any = self.layers[index]
            layer.keys, layer.values = keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.read_only:
            return super().update(key_states, value_states, layer_idx, *args, **kwargs)
        return _append(self.key_values, layer_idx, key_states, value_states)

    def extended(self) -> KeyValues:
        """What the cache began with and all that it was given since."""
        layers: list[Any] = self.layers
        mask = torch.cat([self.key_values.mask, self.batch.mask], dim=1)
        return KeyValues([] if self.read_only else [(layer.keys, layer.values) for layer in layers], mask)


@dataclass(frozen=True)
class SharedPrefix:
    """What a layer's packed queries attend to beside their own rows: see `shared_prefix_attention`.

    Args:
        keys, values: of the shared prefix, at batch size 1.
        batch: the rows that the queries belong to.
        mask: `[batch, 1, width, own width]`, added to scores; None is causal.
    """

    keys: Tensor
    values: Tensor
    batch: PackedBatch
    mask: Tensor | None


class PackedCache(DynamicCache):
    """A cache for packed rows after a prefix that they share.

    To the model it seems empty, so the model takes the packed tokens for one sequence and prepares nothing for what
    stands in front of them. That travels on the keys, as `keys.shared_prefix`, to `shared_prefix_attention`.
    """

    def __init__(self, key_values: KeyValues, batch: PackedBatch, dtype: torch.dtype) -> None:
        super().__init__()
        self.key_values, self.batch, self.extended_layers = key_values, batch, dict[int, tuple[Tensor, Tensor]]()
        self.mask = _additive_mask(key_values.mask, batch.mask, dtype) if key_values.mask.shape[1] else None

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Returns: keys and values of the rows alone, padded; or packed, as they came, where rows had none before."""
        keys, values = key_states, value_states
        if self.mask is not None:
            keys, values = self.batch.pad(key_states), self.batch.pad(value_states)
            keys, values = _append(self.key_values, layer_idx, keys, values)
        self.extended_layers[layer_idx] = keys, values
        prefix = SharedPrefix(*self.key_values.shared_prefix[layer_idx], self.batch, self.mask)
        keys.shared_prefix = prefix  # type: ignore[attr-defined]
        return keys, values

    def extended(self) -> KeyValues:
        """What the cache began with and all that it was given since."""
        mask = torch.cat([self.key_values.mask, self.batch.mask], dim=1)
        layers = [self.extended_layers[index] for index in range(len(self.extended_layers))]
        if self.mask is None:
            layers = [(self.batch.pad(keys), self.batch.pad(values)) for keys, values in layers]
        return KeyValues(layers, mask, self.key_values.shared_prefix, self._room_left())

    def _room_left(self) -> int | None:
        room, added = self.key_values.room, self.batch.mask.shape[1]
        if room is None or not self.key_values.layers:
            return None
        return room - added if room >= added else ROOM


def _append(key_values: KeyValues, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's keys and values so far with new ones after them."""
    if not key_values.layers:
        return keys, values
    keys_so_far, values_so_far = key_values.layers[layer]
    if key_values.room is not None:
        return _grown(keys_so_far, keys, key_values.room), _grown(values_so_far, values, key_values.room)
    return torch.cat([keys_so_far, keys], dim=-2), torch.cat([values_so_far, values], dim=-2)


def _grown(so_far: Tensor, new: Tensor, room: int) -> Tensor:
    """New tokens behind those so far, in the memory that is left there; with more of it where it is too little."""
    batch, heads, width, size = so_far.shape
    whole = width + new.shape[2]
    if room >= new.shape[2]:
        grown = so_far.as_strided((batch, heads, whole, size), so_far.stride())
    else:
        grown = so_far.new_empty(batch, heads, whole + ROOM, size)[:, :, :whole]
        grown[:, :, :width] = so_far
    grown[:, :, width:] = new
    return grown


def _additive_mask(mask_so_far: Tensor, new_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Zero where a token may look, at what is real and not after itself: `[batch, 1, width, width so far + width]`."""
    width = new_mask.shape[1]
    before = mask_so_far[:, None, None].expand(-1, -1, width, -1)
    causal = torch.ones(width, width, dtype=torch.bool, device=new_mask.device).tril().expand(len(new_mask), 1, -1, -1)
    visible = torch.cat([before, causal], dim=-1)
    return torch.zeros_like(visible, dtype=dtype).masked_fill_(~visible, -torch.inf)
