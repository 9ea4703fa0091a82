"""CUDA's attention kernels on a CPU, for tests: by the rules that their C++ follows, checked or not.

As read in PyTorch's `attention.cu`, `attention_backward.cu`, `mem_eff_attention/kernel_backward.h` and
`nn/attention/varlen.py`. What a kernel would refuse raises here; what it would read wrong without a word is read wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor

PADDED = 32  # normalisers in a row are a multiple of it


@contextmanager
def cuda_rules() -> Iterator[None]:
    """Within it, the operators of CUDA's kernels run on a CPU."""
    library = torch.library.Library("aten", "IMPL")
    for name, implementation in IMPLEMENTATIONS.items():
        library.impl(name, implementation, "CPU")
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


def _flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Tensor, Tensor, None, None, int, int, Tensor, Tensor, Tensor]:
    """`[batch, heads, width, size]`; the normalisers as wide as the queries."""
    output, norms = _flash_forward(query, key, value, is_causal, scale)
    nothing = torch.zeros(0)
    sizes = (query.shape[2], key.shape[2])
    return output, norms, None, None, *sizes, nothing, nothing.clone(), nothing.clone()


def _flash_backward(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    cum_seq_q: Tensor | None,
    cum_seq_k: Tensor | None,
    max_q: int,
    max_k: int,
    dropout_p: float,
    is_causal: bool,
    philox_seed: Tensor,
    philox_offset: Tensor,
    *,
    scale: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    assert (max_q, max_k) == (query.shape[2], key.shape[2])
    assert logsumexp.shape == query.shape[:3]
    assert logsumexp.is_contiguous()
    return _flash_gradients(grad_out, query, key, value, out, logsumexp, is_causal, scale)


def _varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cum_seq_q: Tensor,
    cum_seq_k: Tensor,
    max_q: int,
    max_k: int,
    dropout_p: float,
    is_causal: bool,
    return_debug_mask: bool,
    *,
    scale: float | None = None,
    **unused: object,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`[tokens, heads, size]`; the normalisers `[heads, tokens]`."""
    outputs, norms = torch.empty_like(query), query.new_empty(query.shape[1], len(query), dtype=torch.float32)
    for rows in _sequences(cum_seq_q, cum_seq_k, max_q):
        output, norm = _flash_forward(*(_of_row(tensor, rows) for tensor in (query, key, value)), is_causal, scale)
        outputs[rows], norms[:, rows] = output[0].transpose(0, 1), norm[0]
    nothing = torch.zeros(0)
    return outputs, norms, nothing, nothing.clone(), nothing.clone()


def _varlen_backward(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    cum_seq_q: Tensor,
    cum_seq_k: Tensor,
    max_q: int,
    max_k: int,
    dropout_p: float,
    is_causal: bool,
    rng_state: Tensor,
    unused: Tensor,
    *,
    scale: float | None = None,
    **unused_too: object,
) -> tuple[Tensor, Tensor, Tensor]:
    assert logsumexp.shape == (query.shape[1], len(query))
    assert logsumexp.is_contiguous()
    of_all = [torch.full_like(tensor, torch.nan) for tensor in (query, key, value)]
    for rows in _sequences(cum_seq_q, cum_seq_k, max_q):
        gradient, q, k, v, output = (_of_row(tensor, rows) for tensor in (grad_out, query, key, value, out))
        found = _flash_gradients(gradient, q, k, v, output, logsumexp[None, :, rows], is_causal, scale)
        for whole, part in zip(of_all, found, strict=True):
            whole[rows] = part[0].transpose(0, 1)
    return of_all[0], of_all[1], of_all[2]


def _sequences(offsets: Tensor, of_keys: Tensor, longest: int) -> list[slice]:
    assert offsets.dtype == of_keys.dtype == torch.int32
    assert torch.equal(offsets, of_keys), "more than these tests need"
    rows = [slice(begin, end) for begin, end in pairwise(offsets.tolist())]
    assert max(row.stop - row.start for row in rows) <= longest
    return [row for row in rows if row.stop > row.start]


def _of_row(tensor: Tensor, rows: slice) -> Tensor:
    return tensor[rows].transpose(0, 1)[None]


def _flash_forward(
    query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float | None
) -> tuple[Tensor, Tensor]:
    key, value = _check_flash(query, key, value)
    scores = _scores(query, key, None, causal, scale)
    norms = scores.logsumexp(-1)
    return ((scores - norms[..., None]).exp() @ value.float()).to(query.dtype), norms


def _flash_gradients(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    norms: Tensor,
    causal: bool,
    scale: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    assert gradient.dtype == output.dtype == query.dtype
    assert norms.dtype == torch.float32
    heads, (key, value) = key.shape[1], _check_flash(query, key, value)
    weights = (_scores(query, key, None, causal, scale) - norms[..., None]).exp()
    gradient, q, k, v = (tensor.float() for tensor in (gradient, query, key, value))
    of_scores = weights * (gradient @ v.transpose(2, 3) - (gradient * output.float()).sum(-1, keepdim=True))
    weights, of_scores = (tensor.to(query.dtype).float() for tensor in (weights, of_scores))
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    of_keys = (of_scores.transpose(2, 3) @ q * factor, weights.transpose(2, 3) @ gradient)
    of_key, of_value = (tensor.unflatten(1, (heads, -1)).sum(2).to(query.dtype) for tensor in of_keys)
    return (of_scores @ k * factor).to(query.dtype), of_key, of_value


def _check_flash(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Returns: keys and values once for every head of the queries."""
    assert query.dtype == key.dtype == value.dtype
    assert query.dtype in (torch.float16, torch.bfloat16)
    assert query.shape[-1] % 8 == 0
    assert query.shape[-1] <= 256
    assert all(tensor.stride(-1) == 1 for tensor in (query, key, value))
    group = query.shape[1] // key.shape[1]
    return key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)


IMPLEMENTATIONS = {
    "_scaled_dot_product_efficient_attention": _forward,
    "_scaled_dot_product_efficient_attention_backward": _backward,
    "_scaled_dot_product_flash_attention": _flash,
    "_scaled_dot_product_flash_attention_backward": _flash_backward,
    "_flash_attention_forward": _varlen,
    "_flash_attention_backward": _varlen_backward,
}
