"""Attention by parts on random numbers, beside attention written out: whether a device's kernel does what it should."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from embedgrad_cli.core.kernels.kv_cache import KeyValues, PackedCache
from embedgrad_cli.core.kernels.packed_batch import PackedBatch

Attention = Callable[..., tuple[Tensor, None]]  # as `transformers` calls one
TOLERANCE, UNITS = 1e-4, 8  # relative error: in float32, and in units of half precision's rounding


def kernel_difference(attention: Attention, network: Any) -> str | None:
    """In what the device's kernel differs from attention written out, in the network's precision and head sizes."""
    config, weight = network.config.get_text_config(), network.get_input_embeddings().weight
    heads: int = config.num_attention_heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    for before in ((0, 0, 0), (3, 0, 70)):
        found, expected = attended(attention, weight.device, weight.dtype, (heads, key_heads, size), before)
        errors = [relative_error(*pair) for pair in zip(found, expected, strict=True)]
        wrong = [error for error in errors if not error <= max(TOLERANCE, UNITS * torch.finfo(weight.dtype).eps)]
        if wrong:  # NaN too
            return f"the kernel's values or gradients differ by {wrong[0]:.1%} from attention written out"
    return None


@torch.enable_grad()
def attended(
    attention: Attention,
    device: torch.device,
    dtype: torch.dtype,
    shape: tuple[int, int, int],
    before: Sequence[int],
    lengths: Sequence[int] = (65, 1, 40),
    prefix: int = 67,
) -> tuple[list[Tensor], list[Tensor]]:
    """Random rows after a prefix, by an attention function and by a softmax over each row's whole sequence in float32.

    Args:
        shape: heads, key heads, and numbers in each.
        before: tokens that each row has already; nothing of them is computed, so they have no gradient.
        lengths: tokens of each row; by default more than one block of any kernel, and no multiple of what it loads.
        prefix: tokens of it.

    Returns: for both, the values `[1, heads, total, head_size]`, and the gradients of the sum of their squares for
        queries, keys, values, and the prefix's keys and values.
    """
    heads, key_heads, size = shape
    total, generator = sum(lengths), torch.Generator().manual_seed(0)

    def random(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator).to(dtype).to(device)

    given = [random(1, each, total, size).requires_grad_() for each in (heads, key_heads, key_heads)]
    given += [random(1, key_heads, prefix, size).requires_grad_() for _ in range(2)]
    query, keys, values, *of_prefix = given
    kept = (random(len(before), key_heads, max(before), size), random(len(before), key_heads, max(before), size))
    mask = torch.arange(max(before)) < torch.tensor(before)[:, None]
    key_values = KeyValues([kept] if max(before) else [], mask.to(device), [(of_prefix[0], of_prefix[1])])
    batch = PackedBatch.of([range(length) for length in lengths], device)
    cache = PackedCache(key_values, batch, dtype)
    by_parts = attention(torch.nn.Module(), query, *cache.update(keys, values, 0), None)[0].transpose(1, 2)
    rows = zip(*(tensor.float().split(list(lengths), dim=2) for tensor in (query, keys, values)), strict=True)
    whole = []
    for row, (queries, *own) in enumerate(rows):
        sequence = zip(of_prefix, kept, own, strict=True)
        k, v = (torch.cat([p.float(), t[row : row + 1, :, : before[row]].float(), o], dim=2) for p, t, o in sequence)
        whole.append(_written_out(queries, k, v))
    both = [by_parts, torch.cat(whole, dim=2)]
    gradients = [torch.autograd.grad(values.float().square().sum(), given) for values in both]
    return [both[0], *gradients[0]], [both[1], *gradients[1]]


def _written_out(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention of the last tokens of one sequence: `[1, heads, tokens, head_size]`."""
    group, tokens, width = query.shape[1] // key.shape[1], query.shape[2], key.shape[2]
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    hidden = torch.ones(tokens, width, dtype=torch.bool, device=query.device).triu(width - tokens + 1)
    scores = (query @ key.transpose(2, 3)) * query.shape[-1] ** -0.5
    return scores.masked_fill(hidden, -torch.inf).softmax(-1) @ value


@torch.no_grad()
def relative_error(found: Tensor, expected: Tensor) -> float:
    found, expected = found.float(), expected.float()
    return float((found - expected).norm() / expected.norm())
