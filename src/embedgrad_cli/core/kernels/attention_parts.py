"""Attention of packed rows to a prefix that they share, and to their own: each part apart, with its normalisers.

Where the kernel takes packed rows and heads that share keys, nothing is copied. Elsewhere the queries of all rows, and
of all heads that share keys, are one long row for the prefix's part, and for the rows' own part they are padded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from embedgrad_cli.core.kernels.attention_kernels import FLASH, KERNELS, AttentionKernel, FlashKernel, Part, suits_flash
from embedgrad_cli.core.kernels.live_memory import device_type_of
from embedgrad_cli.core.kernels.packed_batch import PackedBatch

Attended = tuple[Tensor, Tensor]  # by one part: the output `[1, heads, total, head_size]`, and its norms, of size 1
Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Rows:
    """What rows attend to.

    Args:
        query: packed, `[1, heads, total, head_size]`.
        prefix_keys, prefix_values: `[1, key heads, prefix width, head_size]`.
        keys, values: of the rows themselves, packed; with a mask `[batch, key heads, own width, head_size]`.
        mask: `[batch, 1, width, own width]`, added to scores; None is causal.
    """

    query: Tensor
    prefix_keys: Tensor
    prefix_values: Tensor
    keys: Tensor
    values: Tensor
    batch: PackedBatch
    mask: Tensor | None
    scale: float | None

    @property
    def heads(self) -> int:
        return self.keys.shape[1]

    def in_float32(self) -> Rows:
        names = ("query", "prefix_keys", "prefix_values", "keys", "values")
        return replace(self, **{name: getattr(self, name).float() for name in names})


def parts_for(query: Tensor, mask: Tensor | None) -> PaddedParts | PackedParts:
    """How parts are computed on the query's device, or on the one that the meta device stands for."""
    device_type = device_type_of(query)
    if mask is None and device_type in FLASH and suits_flash(query):
        return PackedParts(FLASH[device_type])
    return PaddedParts(KERNELS[device_type])


@dataclass(frozen=True)
class PackedParts:
    """By a kernel that takes packed rows, and heads that share keys."""

    kernel: FlashKernel

    def attend(self, rows: Rows) -> tuple[Attended, Attended]:
        """Returns: by the prefix, and by the rows' own tokens."""
        by_prefix, prefix_norms = self.kernel.attend(rows.query, rows.prefix_keys, rows.prefix_values, rows.scale)
        by_suffix, suffix_norms = self.kernel.attend_rows(rows.query, rows.keys, rows.values, rows.scale, rows.batch)
        return (by_prefix, prefix_norms.unsqueeze(-1)), (by_suffix, suffix_norms.unsqueeze(-1))

    def gradients(self, rows: Rows, gradient: Tensor, output: Tensor, norms: Tensor) -> Gradients:
        """Of all tensors of `rows`, each shaped like it. Args: of both parts together."""
        joint = (gradient, output, norms.squeeze(-1))
        of_query, *of_prefix = self.kernel.gradients(
            rows.query, rows.prefix_keys, rows.prefix_values, *joint, rows.scale
        )
        more, *of_own = self.kernel.gradients_of_rows(
            rows.query, rows.keys, rows.values, *joint, rows.scale, rows.batch
        )
        return of_query.float() + more.float(), of_prefix[0], of_prefix[1], of_own[0], of_own[1]


@dataclass(frozen=True)
class PaddedParts:
    """By a kernel that takes as many heads of keys as of queries, and rows of one length."""

    kernel: AttentionKernel

    def attend(self, rows: Rows) -> tuple[Attended, Attended]:
        """As `PackedParts.attend`."""
        rows = rows.in_float32() if self.kernel.in_float32 else rows
        query, batch, heads = rows.query, rows.batch, rows.heads
        by_prefix, prefix_norms = self.kernel.attend(self._prefix(rows))
        by_suffix, suffix_norms = self.kernel.attend(self._suffix(rows))
        return (
            (by_prefix.reshape(query.shape), prefix_norms.reshape(*query.shape[:3], 1)),
            (
                batch.unpad(_ungrouped(by_suffix, heads)),
                batch.unpad(_ungrouped(suffix_norms.unsqueeze(-1), heads)),
            ),
        )

    def gradients(self, rows: Rows, gradient: Tensor, output: Tensor, norms: Tensor) -> Gradients:
        """As `PackedParts.gradients`."""
        if self.kernel.in_float32:
            rows, gradient, output = rows.in_float32(), gradient.float(), output.float()
        query, batch, heads = rows.query, rows.batch, rows.heads
        of_query, of_prefix_keys, of_prefix_values = self.kernel.gradients(
            self._prefix(rows),
            _as_one_row(gradient, heads),
            _as_one_row(output, heads),
            _as_one_row(norms, heads).squeeze(-1),
        )
        more, of_keys, of_values = self.kernel.gradients(
            self._suffix(rows),
            _grouped(batch.pad(gradient) * batch.mask[:, None, :, None], heads),  # padding has no gradient
            _grouped(batch.pad(output), heads),
            _grouped(batch.pad(norms), heads).squeeze(-1),
        )
        of_query = of_query.reshape(query.shape) + batch.unpad(_ungrouped(more, heads))
        of_keys, of_values = (tensor.sum(1).unflatten(0, (-1, heads)) for tensor in (of_keys, of_values))
        if rows.mask is None:
            of_keys, of_values = batch.unpad(of_keys), batch.unpad(of_values)
        return of_query, of_prefix_keys, of_prefix_values, of_keys, of_values

    @staticmethod
    def _prefix(rows: Rows) -> Part:
        return Part(_as_one_row(rows.query, rows.heads), rows.prefix_keys, rows.prefix_values, rows.scale)

    @staticmethod
    def _suffix(rows: Rows) -> Part:
        batch, heads, group, mask = rows.batch, rows.heads, rows.query.shape[1] // rows.heads, rows.mask
        own = (rows.keys, rows.values)
        keys, values = own if mask is not None else (batch.pad(tensor) for tensor in own)
        return Part(
            _grouped(batch.pad(rows.query), heads),
            _for_group(keys, group),
            _for_group(values, group),
            rows.scale,
            causal=mask is None and batch.mask.shape[1] > 1,
            mask=None if mask is None else mask.to(rows.query.dtype).repeat_interleave(heads, 0),
        )


def _as_one_row(packed: Tensor, heads: int) -> Tensor:
    """`[1, all heads, total, n]` → `[1, key heads, group * total, n]`"""
    return packed.reshape(1, heads, -1, packed.shape[-1])


def _grouped(tensor: Tensor, heads: int) -> Tensor:
    """`[batch, all heads, width, n]` → `[batch * key heads, group, width, n]`"""
    return tensor.unflatten(1, (heads, -1)).flatten(0, 1)


def _ungrouped(tensor: Tensor, heads: int) -> Tensor:
    """`[batch * key heads, group, width, n]` → `[batch, all heads, width, n]`"""
    return tensor.unflatten(0, (-1, heads)).flatten(1, 2)


def _for_group(tensor: Tensor, group: int) -> Tensor:
    """`[batch, key heads, width, n]` → `[batch * key heads, group, width, n]`, the group's heads without a copy."""
    return tensor.flatten(0, 1).unsqueeze(1).expand(-1, group, -1, -1)
