"""Attention of many rows to one trunk, without a copy of the trunk for each row, and without padding around it.

A row attends to the trunk, which all rows share, and to what it has of its own. The two parts are computed apart and
put together by their normalisers, as in Hydragen (arXiv 2402.05099) and ring attention (arXiv 2310.01889). For the
trunk's part the queries of all rows are one long row, so its keys and values are read once, and their gradients come
out added up. Only the rows' own part is computed on a padded batch: what surrounds attention sees packed tokens.

The trunk reaches the attention function on the keys: see `kv_cache.SharedCache`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from embedgrad_cli.core.kernels.kv_cache import Past, PastCache, SharedCache
from embedgrad_cli.core.kernels.packed_batch import Rows

NAME = "embedgrad_trunk"

attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_attend_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention function of `transformers`: PyTorch's own, and over a trunk where the keys carry one.

    Args:
        query: `[1, heads, total, head_size]`, packed, where there is a trunk.
        key, value: what the rows have of their own, `[batch, key heads, own width, head_size]`.
    """
    behind = getattr(key, "behind", None)
    if behind is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    output: Tensor = _TrunkAttention.apply(query, *behind.trunk, key, value, behind.rows, behind.mask, scaling)
    return output.transpose(1, 2).contiguous(), None


class _TrunkAttention(torch.autograd.Function):
    """Each part is a call of PyTorch's kernel; given the joint normaliser, so is each part's gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        trunk_keys: Tensor,
        trunk_values: Tensor,
        keys: Tensor,
        values: Tensor,
        rows: Rows,
        mask: Tensor | None,
        scale: float | None,
    ) -> Tensor:
        heads, group = keys.shape[1], query.shape[1] // keys.shape[1]
        causal = mask is None and rows.mask.shape[1] > 1
        mask = None if mask is None else mask.repeat_interleave(heads, 0)
        by_trunk, trunk_norm = attend(_as_one_row(query, heads), trunk_keys, trunk_values, scale=scale)
        by_own, own_norm = attend(
            _grouped(rows.spread(query), heads),
            _for_group(keys, group),
            _for_group(values, group),
            is_causal=causal,
            attn_mask=mask,
            scale=scale,
        )
        trunk_norm = trunk_norm.reshape(*query.shape[:3], 1)
        own_norm = rows.pack(_ungrouped(own_norm.unsqueeze(-1), heads))
        norm = torch.logaddexp(trunk_norm, own_norm)
        output = by_trunk.float().reshape(query.shape) * (trunk_norm - norm).exp_()
        output += rows.pack(_ungrouped(by_own, heads)) * (own_norm - norm).exp_()
        output = output.to(query.dtype)
        ctx.save_for_backward(query, trunk_keys, trunk_values, keys, values, output, norm, mask)
        ctx.rows, ctx.causal, ctx.scale = rows, causal, scale
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, trunk_keys, trunk_values, keys, values, output, norm, mask = ctx.saved_tensors
        rows, gradient = ctx.rows, gradients[0]
        heads, group = keys.shape[1], query.shape[1] // keys.shape[1]
        of_query, of_trunk_keys, of_trunk_values = _attend_backward(
            _as_one_row(gradient, heads),
            _as_one_row(query, heads),
            trunk_keys,
            trunk_values,
            _as_one_row(output, heads),
            _as_one_row(norm, heads).squeeze(-1),
            0.0,
            False,
            scale=ctx.scale,
        )
        of_own_query, of_keys, of_values = _attend_backward(
            _grouped(rows.spread(gradient) * rows.mask[:, None, :, None], heads),  # padding has no gradient
            _grouped(rows.spread(query), heads),
            _for_group(keys, group),
            _for_group(values, group),
            _grouped(rows.spread(output), heads),
            _grouped(rows.spread(norm), heads).squeeze(-1),
            0.0,
            ctx.causal,
            attn_mask=mask,
            scale=ctx.scale,
        )
        of_query = of_query.reshape(query.shape) + rows.pack(_ungrouped(of_own_query, heads))
        of_keys, of_values = of_keys.sum(1).view_as(keys), of_values.sum(1).view_as(values)
        return of_query, of_trunk_keys, of_trunk_values, of_keys, of_values, None, None, None


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


@torch.no_grad()
def reads_trunk_in_place(network: Any) -> bool:
    """Let the network's layers attend to a shared trunk in place, if they can; else leave them as they are.

    They can on a CPU, where no layer's view is cut into chunks and all go through PyTorch's attention. Whether they
    really do is tried out: a model may treat its keys in ways of its own.
    """
    config = network.config.get_text_config()
    if network.config._attn_implementation == NAME:  # arranged before
        return True
    if network.device.type != "cpu" or network.config._attn_implementation != "sdpa":
        return False
    if set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
        return False
    network.set_attn_implementation(NAME)
    try:
        agrees = _agrees(network.base_model)
    except Exception:  # whatever an unknown model raises here means: not with this one
        agrees = False
    if not agrees:
        network.set_attn_implementation("sdpa")
    return agrees


def _agrees(body: Any) -> bool:
    """Whether a few tokens have the same hidden states behind a trunk in place as in one sequence."""
    ids = torch.arange(9, device=body.device)[None]
    nothing = Past([], torch.ones(1, 0, dtype=torch.bool, device=body.device))
    trunk = PastCache(nothing, Rows.of([range(4)], body.device))
    body(input_ids=ids[:, :4], past_key_values=trunk, use_cache=True)
    past, outputs = trunk.extended_past().expand(2, in_place=True), []
    for begin, end in [(4, 8), (8, 9)]:  # two rows alike: some tokens at once, then one more
        rows = Rows.of([range(begin, end)] * 2, body.device)
        cache = SharedCache(past, rows, body.dtype)
        places = rows.tokens[None]  # token n stands at place n
        output = body(input_ids=places, position_ids=places, past_key_values=cache, use_cache=True)
        outputs.append(output.last_hidden_state.view(2, end - begin, -1))
        past = cache.extended_past()
    expected = body(input_ids=ids, use_cache=False).last_hidden_state[:, 4:]
    error = (torch.cat(outputs, dim=1) - expected).float().norm() / expected.float().norm()
    return bool(error <= (1e-4 if expected.dtype == torch.float32 else 0.05))


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
