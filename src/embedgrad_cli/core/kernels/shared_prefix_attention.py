"""Attention of many rows to one prefix that they share, without a copy of it for each row, and without padding.

A row attends to the shared prefix (trunk) and to what it has of its own, its suffix (branch). The two parts are
computed apart and put together by their normalisers, as in Hydragen (arXiv 2402.05099) and ring attention (arXiv
2310.01889). For the prefix's part the queries of all rows are one long row, so its keys and values are read once, and
their gradients come out added up. Only the suffixes' part is computed on a padded batch: what surrounds attention sees
packed tokens.

The prefix reaches the attention function on the keys: see `kv_cache.PackedCache`. A network's layers attend in this way
once `prepare_attention` has told them to.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from embedgrad_cli.core.kernels.activation_checkpointing import body_of
from embedgrad_cli.core.kernels.attention_kernels import KERNELS
from embedgrad_cli.core.kernels.attention_parts import Rows, parts_for
from embedgrad_cli.core.kernels.attention_trial import kernel_difference, relative_error
from embedgrad_cli.core.kernels.kv_cache import KeyValues, PackedCache, PrefixCache
from embedgrad_cli.core.kernels.packed_batch import PackedBatch
from embedgrad_cli.core.kernels.stand_in import stand_in_of
from embedgrad_cli.errors import first_line

log = logging.getLogger(__name__)

NAME = "embedgrad_shared_prefix"
TOLERANCE, PREFIX = 1e-4, 4  # of the trial: relative, in float32; tokens
COPIES = "attention has a copy of the shared prefix for every row: %s"


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention function of `transformers`: PyTorch's own, and over a shared prefix where the keys carry one.

    Args:
        query: `[1, heads, total, head_size]`, packed, where there is a shared prefix.
        key, value: what the rows have of their own, as `kv_cache.PackedCache` gives it.
    """
    prefix = getattr(key, "shared_prefix", None)
    if prefix is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    output: Tensor = _SharedPrefixAttention.apply(
        query, prefix.keys, prefix.values, key, value, prefix.batch, prefix.mask, scaling
    )
    return output.transpose(1, 2).contiguous(), None


class _SharedPrefixAttention(torch.autograd.Function):
    """Each part is a call of PyTorch's kernel; given the joint normaliser, so is each part's gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        prefix_keys: Tensor,
        prefix_values: Tensor,
        keys: Tensor,
        values: Tensor,
        batch: PackedBatch,
        mask: Tensor | None,
        scale: float | None,
    ) -> Tensor:
        kept, parts = (query, prefix_keys, prefix_values, keys, values), parts_for(query, mask)
        (by_prefix, prefix_norm), (by_suffix, suffix_norm) = parts.attend(Rows(*kept, batch, mask, scale))
        # In float32, so that half precision rounds the sum of both parts once, as it rounds attention elsewhere.
        norm = torch.logaddexp(prefix_norm, suffix_norm)
        output = by_prefix * (prefix_norm - norm).exp_()
        output += by_suffix * (suffix_norm - norm).exp_()
        output = output.to(query.dtype)
        ctx.save_for_backward(*kept, output, norm, mask)
        ctx.batch, ctx.scale, ctx.parts = batch, scale, parts
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        *kept, output, norm, mask = ctx.saved_tensors
        query, prefix_keys, prefix_values, keys, values = kept
        rows = Rows(query, prefix_keys, prefix_values, keys, values, ctx.batch, mask, ctx.scale)
        of_all = ctx.parts.gradients(rows, gradients[0], output, norm)
        return *(tensor.to(output.dtype) for tensor in of_all), None, None, None


@torch.no_grad()
def prepare_attention(network: Any) -> bool:
    """Let the network's layers attend to a shared prefix in place, if they can; else leave them as they are.

    They can where the device has a kernel for it, no layer's view is cut into windows or chunks, and all go through
    PyTorch's attention. Whether they really do is tried out: the kernel on random numbers in the network's precision,
    and the layers on its stand-in (`stand_in_of`), as a model may treat its keys in ways of its own. The log says why
    not.

    Returns: whether they can. What they compute without a shared prefix stays the same.
    """
    implementation = network.config._attn_implementation
    if implementation == NAME:  # prepared before
        return True
    reason = _why_not(network, network.device.type)
    if reason is not None:
        log.info(COPIES, reason)
        return False
    try:
        if not KERNELS[network.device.type].held_by_tests:
            reason = kernel_difference(attention, network)
        network.set_attn_implementation(NAME)
        _after_a_prefix(body_of(network))  # in its own precision nothing is compared: rounding may be all there is
        with stand_in_of(network) as exact:
            reason = reason or _difference(body_of(exact))
    except Exception as error:  # whatever an unknown model or device raises here means: not with this one
        reason = first_line(error)
    if reason is not None:
        log.warning(COPIES, reason)
        network.set_attn_implementation(implementation)
    return reason is None


def assume_prepared(network: Any, device_type: str) -> bool:
    """`prepare_attention` of a network without numbers (on the meta device), which cannot be tried out.

    Args: device_type: where the network would be.
    """
    if _why_not(network, device_type) is not None:
        return False
    network.set_attn_implementation(NAME)
    return True


def _why_not(network: Any, device_type: str) -> str | None:
    """Why its config, or the device, keeps the network's layers from attending to a shared prefix in place."""
    if device_type not in KERNELS:
        return f"no kernel for {device_type} gives normalisers"
    if network.config._attn_implementation != "sdpa":
        return f"its attention is {network.config._attn_implementation}, not sdpa"
    return None if _sees_everything(network.config.get_text_config()) else "some layers see a part of what is before"


def _sees_everything(config: Any) -> bool:
    """Whether every layer attends to all tokens before."""
    layer_types = getattr(config, "layer_types", None)
    if layer_types is None:
        return getattr(config, "sliding_window", None) is None
    return set(layer_types) == {"full_attention"}


def _difference(body: Any) -> str | None:
    """Whether a few tokens have other hidden states after a prefix in place than in one sequence, in float32."""
    expected = body(input_ids=_some_ids(body), use_cache=False).last_hidden_state[:, PREFIX:]
    error = relative_error(_after_a_prefix(body), expected)
    return None if error <= TOLERANCE else f"its layers differ by {error:.1%} after a prefix in place"


def _after_a_prefix(body: Any) -> Tensor:
    """The hidden states of two equal rows after a prefix in place: some tokens at once, then one more."""
    ids = _some_ids(body)
    prefix = PrefixCache(KeyValues.empty(body.device), PackedBatch.of([range(PREFIX)], body.device))
    body(input_ids=ids[:, :PREFIX], past_key_values=prefix, use_cache=True)
    key_values, outputs = prefix.extended().expand(2, in_place=True), []
    for begin, end in [(PREFIX, 8), (8, 9)]:
        batch = PackedBatch.of([range(begin, end)] * 2, body.device)
        cache = PackedCache(key_values, batch, body.dtype)
        positions = batch.tokens[None]  # token n stands at position n
        output = body(input_ids=positions, position_ids=positions, past_key_values=cache, use_cache=True)
        outputs.append(output.last_hidden_state.view(2, end - begin, -1))
        key_values = cache.extended()
    return torch.cat(outputs, dim=1)


def _some_ids(body: Any) -> Tensor:
    return torch.arange(9, device=body.device)[None]


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
