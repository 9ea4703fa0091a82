"""Cross-entropy of a frozen output layer, without ever holding all logits.

As the layer is frozen, the gradient for its input is all there is, and it is computed along with the loss. For a
hidden state h, the layer's rows W and a target t they are

    loss = log Σ exp(W h) - W[t]·h        gradient = softmax(W h) W - W[t]

So the first terms are what attention gives for the query h with W as its keys *and* its values: the normaliser and the
output. A CPU's attention kernel reads W once, in blocks that stay in its cache, and keeps no logits; elsewhere the
logits of some rows are held at a time. Liger-Kernel and Apple's CCE (arXiv 2411.09009) do the same in kernels of their
own.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from embedgrad_cli.core.kernels.attention_kernels import attend_on_cpu
from embedgrad_cli.core.kernels.live_memory import device_type_of

# Rows of logits held at once. Fewer make poor matrix products, more bring nothing: measured on 2 CPU cores with
# vocabularies of 32,000 and 152,000.
LOGIT_ROWS = 256
# By attention, rows in one call, and parts of the vocabulary, for as many threads to work on where rows are few.
ATTENTION_ROWS, PARTS = 1024, 8
# Rows of the output layer that are looked up at once: 64 MB of float32 at a hidden size of 2,048.
LOOKED_UP = 8192


class _FrozenHeadLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
        needs_gradient = ctx.needs_input_grad[0]
        by_attention = needs_gradient and _suits_attention(weight, bias)
        rows = ATTENTION_ROWS if by_attention else LOGIT_ROWS
        losses, gradients = list[Tensor](), list[Tensor]()
        gradient: Tensor | None
        for part, part_targets in zip(hidden.split(rows), targets.split(rows), strict=True):
            if by_attention:
                loss, gradient = _by_attention(part, weight, part_targets)
            else:
                loss, gradient = _by_logits(part, weight, bias, part_targets, needs_gradient)
            losses.append(loss)
            if gradient is not None:
                gradients.append(gradient)
        if gradients:
            ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0].unsqueeze(1).to(gradient.dtype), None, None, None


def _suits_attention(weight: Tensor, bias: Tensor | None) -> bool:
    return bias is None and device_type_of(weight) == "cpu"


def _by_attention(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Losses `[n]` and their gradients `[n, hidden_size]`; the vocabulary's parts are merged by their normalisers."""
    parts = math.gcd(len(weight), PARTS)
    vocabulary = weight.unflatten(0, (parts, -1)).unsqueeze(0)
    means, norms = attend_on_cpu(hidden.expand(1, parts, -1, -1), vocabulary, vocabulary, scale=1.0)
    norms = norms.view(parts, -1, 1)
    norm = norms.logsumexp(0)
    mean = (means[0].float() * (norms - norm).exp()).sum(0)
    target_rows = weight[targets].float()
    return norm.squeeze(1) - (hidden.float() * target_rows).sum(1), (mean - target_rows).to(hidden.dtype)


def _by_logits(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, needs_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """As `_by_attention`, from all logits of these rows; the gradient is None where nobody needs it."""
    logits = linear(hidden, weight, bias).float()
    norm = logits.logsumexp(dim=1, keepdim=True)
    losses = (norm - logits.gather(1, targets[:, None])).squeeze(1)
    if not needs_gradient:
        return losses, None
    error = logits.sub_(norm).exp_()
    error[torch.arange(len(targets), device=targets.device), targets] -= 1.0
    return losses, error.to(weight.dtype) @ weight


def frozen_head_losses(hidden: Tensor, layer: torch.nn.Linear, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Negative log-likelihood of each target under a frozen output layer, whose logits the temperature divides.

    Args: hidden `[n, hidden_size]`, targets `[n]`. Returns: `[n]` float32; gradients reach `hidden` alone.
    """
    bias: Tensor | None = layer.bias
    if temperature != 1.0:
        hidden, bias = hidden / temperature, None if bias is None else bias / temperature
    losses: Tensor = _FrozenHeadLosses.apply(hidden, layer.weight, bias, targets)
    return losses


class _RowProducts(torch.autograd.Function):
    """The logits of some tokens alone; their rows of the layer are looked up again on the way back, not kept."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(weight, ids)
        ctx.dtype = hidden.dtype
        parts = zip(hidden.split(_looked_up(ids)), ids.split(_looked_up(ids)), strict=True)
        return torch.cat([torch.einsum("nh,nkh->nk", part.float(), weight[rows].float()) for part, rows in parts])

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        weight, ids = ctx.saved_tensors
        parts = zip(outputs[0].split(_looked_up(ids)), ids.split(_looked_up(ids)), strict=True)
        gradient = torch.cat([torch.einsum("nk,nkh->nh", part, weight[rows].float()) for part, rows in parts])
        return gradient.to(ctx.dtype), None, None


def _looked_up(ids: Tensor) -> int:
    return max(LOOKED_UP // ids.shape[1], 1)


def frozen_head_likelihoods(hidden: Tensor, layer: torch.nn.Linear, ids: Tensor) -> Tensor:
    """Log-likelihoods of some tokens at each position under a frozen output layer.

    Args: hidden `[n, hidden_size]`, ids `[n, k]`. Returns: `[n, k]` float32; gradients reach `hidden` alone.
    """
    logits: Tensor = _RowProducts.apply(hidden, layer.weight, ids)
    logits = logits if layer.bias is None else logits + layer.bias[ids].float()
    norms = frozen_head_losses(hidden, layer, ids[:, 0]) + logits[:, 0]
    return logits - norms[:, None]
