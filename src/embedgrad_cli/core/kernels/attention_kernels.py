"""PyTorch's attention kernels that also give their normalisers, by device, forward and backward.

What attention gives for some of the keys can be merged with what it gives for others by the logarithms of their
softmax's denominators, and each part's gradient follows from the merged output and normaliser. PyTorch's context
parallelism drives the same operators in this way.

`flex_attention` gives normalisers too, but has no backward pass on a CPU: no test here could hold its gradients.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from embedgrad_cli.core.kernels.packed_batch import PackedBatch

aten = torch.ops.aten
attend_on_cpu = aten._scaled_dot_product_flash_attention_for_cpu
_attend_on_cpu_backward = aten._scaled_dot_product_flash_attention_for_cpu_backward
_attend_on_cuda = aten._scaled_dot_product_efficient_attention
_attend_on_cuda_backward = aten._scaled_dot_product_efficient_attention_backward

LARGEST_FLASH, OLDEST_FLASH = 256, (8, 0)  # numbers in a head; compute capability
NORMS_ALIGNED, MASK_ALIGNED = 32, 16  # numbers per row, for the CUDA kernel to load


@dataclass(frozen=True)
class Part:
    """Some of the keys that queries attend to.

    Args:
        query, key, value: `[batch, heads, width, head_size]`, of as many heads each; views of fewer are no copies.
        scale: of the scores; None is 1 / sqrt(head_size).
        causal: each query sees the keys up to its own place.
        mask: `[batch, 1, width, key width]`, added to the scores.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    scale: float | None = None
    causal: bool = False
    mask: Tensor | None = None


class AttentionKernel(ABC):
    """Attention with its normalisers.

    `in_float32`: it is better given float32, whatever the model's precision is. `held_by_tests`: they run it as it is;
    another one is tried out before it is relied on, on the device itself (`attention_trial`).
    """

    in_float32: bool
    held_by_tests: bool

    @abstractmethod
    def attend(self, part: Part) -> tuple[Tensor, Tensor]:
        """Returns: the output, shaped like the query, and the normalisers `[batch, heads, width]`, float32."""

    @abstractmethod
    def gradients(self, part: Part, gradient: Tensor, output: Tensor, norms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the part's query, key and value, each shaped like it.

        Args: gradient, output, norms: of all parts together.
        """


class _CpuFlash(AttentionKernel):
    """In half precision its backward pass takes up to five times as long as in float32, where rows are short."""

    in_float32, held_by_tests = True, True

    def attend(self, part: Part) -> tuple[Tensor, Tensor]:
        output, norms = attend_on_cpu(
            part.query, part.key, part.value, is_causal=part.causal, attn_mask=part.mask, scale=part.scale
        )
        return output, norms

    def gradients(self, part: Part, gradient: Tensor, output: Tensor, norms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        given = (gradient, part.query, part.key, part.value, output, norms, 0.0, part.causal)
        of_query, of_key, of_value = _attend_on_cpu_backward(*given, attn_mask=part.mask, scale=part.scale)
        return of_query, of_key, of_value


class _CudaEfficient(AttentionKernel):
    """CUDA's memory-efficient attention: of PyTorch's kernels the one that takes float32, half precision and masks.

    Not all that its C++ takes for granted is checked there: its backward pass reads an output that lies as the forward
    pass wrote it, position by position, and normalisers in rows of 32 with infinity behind the last. A mask has as many
    heads as the queries, in the same precision, and rows that begin at multiples of 16 numbers.
    """

    in_float32, held_by_tests = False, False

    def attend(self, part: Part) -> tuple[Tensor, Tensor]:
        given = (part.query, part.key, part.value, _aligned_mask(part))
        output, norms, *_ = _attend_on_cuda(*given, True, 0.0, part.causal, scale=part.scale)
        return output, norms[..., : part.query.shape[2]]

    def gradients(self, part: Part, gradient: Tensor, output: Tensor, norms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        output = output.transpose(1, 2).contiguous().transpose(1, 2)
        norms = pad(norms, (0, -norms.shape[-1] % NORMS_ALIGNED), value=torch.inf)
        given = (gradient, part.query, part.key, part.value, _aligned_mask(part), output, norms)
        unused = norms.new_empty((), dtype=torch.long)  # what random numbers began with, for dropout
        wanted = [True, True, True, False]
        of_query, of_key, of_value, _ = _attend_on_cuda_backward(
            *given, unused, unused, 0.0, wanted, part.causal, scale=part.scale
        )
        return of_query, of_key, of_value


def _aligned_mask(part: Part) -> Tensor | None:
    if part.mask is None:
        return None
    width = part.mask.shape[-1]
    aligned = pad(part.mask, (0, -width % MASK_ALIGNED))[..., :width]
    return aligned.expand(-1, part.query.shape[1], -1, -1)


class FlashKernel:
    """CUDA's flash attention: for half precision and packed rows, where heads share keys without a copy.

    Tensors come and go as `[1, heads, tokens, head_size]`, which the kernel reads as `[tokens, heads, head_size]`, as
    networks lay them out. Normalisers are `[1, heads, tokens]`.
    """

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> tuple[Tensor, Tensor]:
        """All queries see all keys."""
        output, norms, *_ = aten._scaled_dot_product_flash_attention(query, key, value, 0.0, False, False, scale=scale)
        return output, norms

    def gradients(
        self, query: Tensor, key: Tensor, value: Tensor, gradient: Tensor, output: Tensor, norms: Tensor, scale: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `AttentionKernel.gradients`."""
        given, sizes = (gradient, query, key, value, output, norms.contiguous()), (query.shape[2], key.shape[2])
        of_query, of_key, of_value = aten._scaled_dot_product_flash_attention_backward(
            *given, None, None, *sizes, 0.0, False, *_no_dropout(query), scale=scale
        )
        return of_query, of_key, of_value

    def attend_rows(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float | None, batch: PackedBatch
    ) -> tuple[Tensor, Tensor]:
        """Each query sees the keys of its own row up to its own place."""
        given, width = [_by_tokens(tensor) for tensor in (query, key, value)], batch.mask.shape[1]
        output, norms, *_ = aten._flash_attention_forward(
            *given, batch.offsets, batch.offsets, width, width, 0.0, True, False, scale=scale
        )
        return _by_heads(output), norms.unsqueeze(0)

    def gradients_of_rows(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        gradient: Tensor,
        output: Tensor,
        norms: Tensor,
        scale: float | None,
        batch: PackedBatch,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `gradients`, of `attend_rows`."""
        given, width = [_by_tokens(tensor) for tensor in (gradient, query, key, value, output)], batch.mask.shape[1]
        rows = (batch.offsets, batch.offsets, width, width)
        of_all = aten._flash_attention_backward(
            *given, norms[0].contiguous(), *rows, 0.0, True, *_no_dropout(query), scale=scale
        )
        of_query, of_key, of_value = (_by_heads(tensor) for tensor in of_all)
        return of_query, of_key, of_value


def _by_tokens(tensor: Tensor) -> Tensor:
    """`[1, heads, tokens, n]` → `[tokens, heads, n]`"""
    return tensor[0].transpose(0, 1)


def _by_heads(tensor: Tensor) -> Tensor:
    """`[tokens, heads, n]` → `[1, heads, tokens, n]`"""
    return tensor.transpose(0, 1).unsqueeze(0)


def _no_dropout(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """In place of what its random numbers began with."""
    return tensor.new_empty(2, dtype=torch.uint64), tensor.new_empty(0, dtype=torch.uint64)


KERNELS: dict[str, AttentionKernel] = {"cpu": _CpuFlash(), "cuda": _CudaEfficient()}
FLASH: dict[str, FlashKernel] = {"cuda": FlashKernel()}  # for what `suits_flash`


def suits_flash(query: Tensor) -> bool:
    """Whether flash attention takes queries of this precision and size, on their GPU."""
    size = query.shape[-1]
    return (
        query.dtype in (torch.float16, torch.bfloat16)
        and size % 8 == 0
        and size <= LARGEST_FLASH
        and (query.device.type != "cuda" or torch.cuda.get_device_capability(query.device) >= OLDEST_FLASH)
    )
