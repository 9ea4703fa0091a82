"""Linear layers whose frozen weights are packed (quantised), and whether their gradient is the one of those weights.

A layer is exact for us if it is the linear map of the weights that it stands for, forward and backward. Layers that
round their *inputs* too (LLM.int8, dynamic activations) are not: no gradient is that of what they compute. Kernels for
inference alone know no backward pass. No config says it for all libraries, so it is seen in numbers.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from embedgrad_cli.core.kernels.activation_checkpointing import decoder_layers
from embedgrad_cli.errors import first_line

PROBES = 32  # random vectors on either side of a layer
TOLERANCE = 1e-3  # relative, in float32: LLM.int8 is off by 5e-3


def is_plain(weight: Tensor | None) -> bool:
    """Whether a weight is a matrix of numbers that anything can be computed with."""
    is_known = weight is not None and type(weight) in (Tensor, nn.Parameter)
    return is_known and weight.is_floating_point() and weight.itemsize > 1  # type: ignore[union-attr]


class _FrozenLinear(torch.autograd.Function):
    """What is kept for the backward pass is the packed weight; autograd would keep the unpacked one of every layer."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Any, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        return linear(inputs, weight.dequantize().to(inputs.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        return outputs[0] @ ctx.weight.dequantize().to(outputs[0].dtype), None, None


class PackedLinear(nn.Linear):
    """A layer with a frozen weight of torchao's, which is unpacked when the layer runs, in its input's precision."""

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = _FrozenLinear.apply(input, self.weight, self.bias)
        return output


def settle_packed(network: nn.Module) -> None:
    """Let packed layers compute in the precision of their input, and keep a backward pass; in place."""
    module: Any
    for module in network.modules():
        weight = getattr(module, "weight", None)
        rounds_inputs = getattr(weight, "act_quant_kwargs", None) is not None
        if type(module) is nn.Linear and not is_plain(weight) and hasattr(weight, "dequantize") and not rounds_inputs:
            module.__class__ = PackedLinear
        if hasattr(module, "compute_type_is_set"):  # of bitsandbytes; with a precision of its own it casts to that
            module.compute_dtype, module.compute_type_is_set = None, True
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # Else a pass without gradient packs the weights anew, for a kernel of bfloat16 that has no backward pass.
            module.support_avx512bf16_for_cpu = False


def float32_copy(module: Any) -> Any:
    """A copy in float32, in which packed weights are unpacked to float32. Transformers' own `float` refuses them."""
    copied = nn.Module.float(copy.deepcopy(module))
    for part in copied.modules():
        state = getattr(getattr(part, "weight", None), "quant_state", None)
        if state is not None:  # of bitsandbytes, whose backward pass would round them to what was the model's precision
            state.dtype = torch.float32
    return copied


def packed_layers(network: Any) -> list[nn.Module]:
    """Of the first block, all being alike, and the output layer: those without a plain weight; one of each kind."""
    blocks = decoder_layers(network)[:1]
    modules = [module for block in blocks for module in block.modules()] + [network.get_output_embeddings()]
    packed = [m for m in modules if _width(m) and not is_plain(getattr(m, "weight", None))]
    return list({(type(layer), type(getattr(layer, "weight", None))): layer for layer in packed}.values())


def why_not_linear(layer: nn.Module, device: torch.device) -> str | None:
    """Compare a layer with its backward pass: for a linear map f, <g, f(v) - f(0)> is <backward(g), v> for all g and v.

    Returns: what is wrong, in words; None: nothing.
    """
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(PROBES, _width(layer), generator=draw).to(device)
    zeros = torch.zeros_like(inputs).requires_grad_()
    try:
        layer = float32_copy(layer)
        with torch.no_grad():
            outputs = layer(inputs) - layer(torch.zeros_like(inputs))
        given = torch.randn(outputs.shape, generator=draw).to(device)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(layer(zeros), zeros, given)
    except Exception as error:  # of a kind that each library chooses for itself
        return f"no gradient comes back on {device.type}: {first_line(error).rstrip('.')}"
    forward, backward = outputs @ given.T, inputs @ gradient.T
    off = float((forward - backward).norm() / forward.norm())
    return None if off <= TOLERANCE else f"the gradient is {off:.1%} off what they compute"


def _width(module: nn.Module | None) -> int:
    return getattr(module, "in_features", None) or getattr(module, "infeatures", None) or 0
