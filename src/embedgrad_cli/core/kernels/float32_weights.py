"""Compute in float32 with weights that are kept in half precision.

Half precision rounds what is computed, not only what is kept. Where few tokens carry a gradient that many have added up
to, that one rounding is the largest there is, and float32 costs little, because the tokens are few. Weights are cast
layer by layer, when a layer runs and again in its backward pass: never is more than one layer of them in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from embedgrad_cli.core.kernels.activation_checkpointing import body_of, decoder_layers
from embedgrad_cli.core.kernels.memory import storage_key
from embedgrad_cli.core.kernels.packed_linear import is_plain

HALF = (torch.float16, torch.bfloat16)
Casts = dict[int, Tensor]  # the storage of a float32 copy: the weight that it is of


@contextmanager
def float32_weights(network: Any) -> Iterator[None]:
    """Within it, the network's body computes in float32; with float32 embeddings as its input.

    Its embedding table, which that input came from, stays as it is. What is kept for the backward pass of a weight's
    copy is the weight itself.
    """
    casts: Casts = {}
    layers = decoder_layers(network)
    table = network.get_input_embeddings().weight
    of_layers = {id(p) for layer in layers for p in layer.parameters()} | {id(table)}
    rest = [p for p in body_of(network).parameters() if id(p) not in of_layers]
    with ExitStack() as stack:
        stack.enter_context(_cast(rest, casts))
        for layer in layers:
            _cast_while_it_runs(layer, casts, stack.callback)
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(*_hooks(casts)))
        yield


@contextmanager
def _cast(parameters: list[nn.Parameter], casts: Casts) -> Iterator[None]:
    """Let half-precision parameters hold float32 copies of themselves; packed ones are unpacked as they are."""
    kept = [(p, p.data) for p in parameters if p.dtype in HALF and is_plain(p)]
    for parameter, data in kept:
        parameter.data = data.float()
        casts[storage_key(parameter.data)] = data
    try:
        yield
    finally:
        for parameter, data in kept:
            casts.pop(storage_key(parameter.data), None)
            parameter.data = data


def _cast_while_it_runs(layer: nn.Module, casts: Casts, at_end: Callable[[Callable[[], None]], Any]) -> None:
    stack = ExitStack()
    before = layer.register_forward_pre_hook(
        lambda *_: stack.enter_context(_cast(list(layer.parameters()), casts)), prepend=True
    )
    after = layer.register_forward_hook(lambda *_: stack.close(), always_call=True)
    for end in (before.remove, after.remove, stack.close):
        at_end(end)


def _hooks(casts: Casts) -> tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]:
    """What autograd keeps of a float32 copy, perhaps a view of it, is the weight and how the view lies in it."""

    def pack(tensor: Tensor) -> Any:
        weight = casts.get(storage_key(tensor))
        if weight is None:
            return tensor
        return weight, (tensor.size(), tensor.stride(), tensor.storage_offset())

    def unpack(packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        weight, view = packed
        return weight.float().as_strided(*view)

    return pack, unpack
