"""PyTorch's attention kernels that also give their normalisers, by device, forward and backward.

What attention gives for some of the keys can be merged with what it gives for others by the logarithms of their
softmax's denominators, and each part's gradient follows from the merged output and normaliser. PyTorch's context
parallelism drives the same operators in this way.

`flex_attention` gives normalisers too, but has no backward pass on a CPU: no test here could hold its gradients.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from embedgrad_cli.core.kernels.live_memory import device_type_of

attend_on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_attend_on_cpu_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_attend_on_cuda = torch.ops.aten._scaled_dot_product_efficient_attention
_attend_on_cuda_backward = torch.ops.aten._scaled_dot_product_efficient_attention_backward

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


KERNELS: dict[str, AttentionKernel] = {"cpu": _CpuFlash(), "cuda": _CudaEfficient()}


def kernel_for(tensor: Tensor) -> AttentionKernel:
    """The kernel of the device that a tensor is on, or that the meta device stands for."""
    return KERNELS[device_type_of(tensor)]
