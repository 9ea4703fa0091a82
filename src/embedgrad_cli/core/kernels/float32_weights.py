"""Compute in float32 with weights that are kept in half precision.

Half precision rounds what is computed, not only what is kept. Where few tokens carry a gradient that many have added up
to, that one rounding is the largest there is, and float32 costs little, because the tokens are few. Weights are cast
layer by layer, when a layer runs and again in its backward pass: never is more than one layer of them in float32.

Of a weight that processes divide between them (a DTensor) each casts its part. Such a parameter takes no other
precision in place, so its module is given another one, and its own again in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from embedgrad_cli.core.kernels.activation_checkpointing import body_of, decoder_layers
from embedgrad_cli.core.kernels.memory import storage_key
from embedgrad_cli.core.kernels.packed_linear import is_plain

HALF = (torch.float16, torch.bfloat16)
Casts = dict[int, Tensor]  # the storage of a float32 copy: the weight that it is of


@dataclass(frozen=True)
class Division:
    """How a tensor lies in several processes."""

    mesh: Any
    placements: Any
    shape: torch.Size
    stride: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> Division | None:
        """None: it is whole."""
        if not isinstance(tensor, DTensor):
            return None
        return cls(tensor.device_mesh, tensor.placements, tensor.shape, tensor.stride())

    def whole(self, part: Tensor) -> Tensor:
        """The tensor of which this process has this part."""
        return DTensor.from_local(
            part, self.mesh, self.placements, run_check=False, shape=self.shape, stride=self.stride
        )


@torch.no_grad()
def _part_of(tensor: Tensor) -> Tensor:
    """What this process has of a tensor; all of one that is whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


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
def all_in_float32(network: nn.Module) -> Iterator[None]:
    """Within it all weights of the network are in float32, as they are in a copy of one that is not divided."""
    with _cast(list(network.parameters()), {}), _cast_divided(list(network.modules()), {}):
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


@contextmanager
def _cast_divided(modules: list[nn.Module], casts: Casts) -> Iterator[None]:
    """Let modules hold float32 copies of the parts that they have in half precision.

    Args: casts: knows, as long as it lasts, what each copy is of.
    """
    kept = [
        (module, name, parameter)
        for module in modules
        for name, parameter in module._parameters.items()
        if parameter is not None and parameter.dtype in HALF and isinstance(parameter, DTensor)
    ]
    keys = []
    for module, name, parameter in kept:
        part = _part_of(parameter)
        copy = part.float()
        module._parameters[name] = nn.Parameter(Division.of(parameter).whole(copy), requires_grad=False)  # type: ignore[union-attr]
        keys.append(storage_key(copy))
        casts[keys[-1]] = part
    try:
        yield
    finally:
        for module, name, parameter in kept:
            module._parameters[name] = parameter
        for key in keys:
            casts.pop(key, None)


def _cast_while_it_runs(layer: nn.Module, casts: Casts, at_end: Callable[[Callable[[], None]], Any]) -> None:
    stack = ExitStack()

    def enter(*_: Any) -> None:
        stack.enter_context(_cast(list(layer.parameters()), casts))
        stack.enter_context(_cast_divided(list(layer.modules()), casts))

    before = layer.register_forward_pre_hook(enter, prepend=True)
    after = layer.register_forward_hook(lambda *_: stack.close(), always_call=True)
    for end in (before.remove, after.remove, stack.close):
        at_end(end)


def _hooks(casts: Casts) -> tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]:
    """What autograd keeps of a float32 copy, perhaps a view of it, is the weight and how the view lies in it."""

    def pack(tensor: Tensor) -> Any:
        part = _part_of(tensor)
        weight = casts.get(storage_key(part))
        if weight is None:
            return tensor
        return weight, (part.size(), part.stride(), part.storage_offset()), Division.of(tensor)

    def unpack(packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        weight, view, division = packed
        part = weight.float().as_strided(*view)
        return part if division is None else division.whole(part)

    return pack, unpack
