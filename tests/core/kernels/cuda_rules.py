"""CUDA's memory-efficient attention on a CPU, for tests: by the rules that its C++ follows, checked or not.

Read in PyTorch 2.13 (`attention.cu`, `attention_backward.cu`, `mem_eff_attention/kernel_backward.h`). What the kernel
would refuse raises here; what it would read wrong without a word is read wrong here too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

NAME = "_scaled_dot_product_efficient_attention"
PADDED = 32  # normalisers in a row are a multiple of it


@contextmanager
def cuda_rules() -> Iterator[None]:
    """Within it, the operators of CUDA's kernel run on a CPU."""
    library = torch.library.Library("aten", "IMPL")
    library.impl(NAME, _forward, "CPU")
    library.impl(f"{NAME}_backward", _backward, "CPU")
    try:
        yield
    finally:
        library._destroy()


def _forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_bias: Tensor | None,
    compute_log_sumexp: bool,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _check(query, key, value, attn_bias)
    scores = _scores(query, key, attn_bias, is_causal, scale)
    norms, width = scores.logsumexp(-1), query.shape[2]
    padded = norms.new_full((*norms.shape[:2], math.ceil(width / PADDED) * PADDED), torch.inf)
    padded[..., :width] = norms
    # The kernel writes position by position, all heads of each.
    output = ((scores - norms[..., None]).exp() @ value.float()).to(query.dtype)
    state = torch.zeros((), dtype=torch.long)
    return output.transpose(1, 2).contiguous().transpose(1, 2), padded, state, state.clone()


def _backward(
    grad_out_: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_bias: Tensor | None,
    out: Tensor,
    logsumexp: Tensor,
    philox_seed: Tensor,
    philox_offset: Tensor,
    dropout_p: float,
    grad_input_mask: list[bool],
    is_causal: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    _check(query, key, value, attn_bias)
    batch, heads, width, size = query.shape
    assert logsumexp.dtype == torch.float32
    assert logsumexp.stride(0) % 8 == logsumexp.stride(1) % 8 == 0, "LSE is not correctly aligned"
    # Read to the end of the block, with infinity for what is no query; and the output by strides of its own.
    blocks = math.ceil(width / PADDED) * PADDED
    norms = logsumexp.as_strided((batch, heads, blocks), logsumexp.stride())
    assert torch.all(norms[..., width:] == torch.inf)
    output = out.as_strided((batch, heads, width, size), (out.stride(0), out.stride(1), heads * size, 1)).float()
    gradient, q, k, v = (tensor.float() for tensor in (grad_out_, query, key, value))
    weights = (_scores(query, key, attn_bias, is_causal, scale) - norms[..., :width, None]).exp()
    of_scores = weights * (gradient @ v.transpose(2, 3) - (gradient * output).sum(-1, keepdim=True))
    weights, of_scores = (tensor.to(query.dtype).float() for tensor in (weights, of_scores))
    factor = size**-0.5 if scale is None else scale
    of_all = (of_scores @ k * factor, of_scores.transpose(2, 3) @ q * factor, weights.transpose(2, 3) @ gradient)
    of_query, of_key, of_value = (tensor.to(query.dtype) for tensor in of_all)
    return of_query, of_key, of_value, None


def _check(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> None:
    assert query.shape[:2] == key.shape[:2] == value.shape[:2], "as many rows, and heads"
    assert query.dtype == key.dtype == value.dtype
    for tensor in (query, key, value):
        assert tensor.stride(3) == 1
        assert all(stride % 4 == 0 for stride in tensor.stride()[:3])
    if bias is not None:
        assert bias.dtype == query.dtype
        assert bias.shape == (*query.shape[:3], key.shape[2]), "nothing is expanded"
        assert bias.stride(3) == 1
        assert all(stride % 16 == 0 for stride in bias.stride()[:3])


def _scores(query: Tensor, key: Tensor, bias: Tensor | None, causal: bool, scale: float | None) -> Tensor:
    scores = query.float() @ key.float().transpose(2, 3) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None:
        scores = scores + bias.float()
    if causal:  # from the top left
        hidden = torch.ones(scores.shape[2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(hidden, -torch.inf)
    return scores
