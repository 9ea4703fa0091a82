"""A small exact stand-in for a network, on which ways of computing are tried out before they are relied on.

In half precision rounding hides what a wrong way of computing changes, and a whole network in float32 may not fit. So
ways are compared on the network's first layers, as many as have every kind of layer, in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from embedgrad_cli.core.kernels.activation_checkpointing import body_of, decoder_layers
from embedgrad_cli.core.kernels.float32_weights import Division, all_in_float32
from embedgrad_cli.core.kernels.packed_linear import float32_copy

MOST_LAYERS = 8
NUMBERS_OF_A_LAYER = ("layer_idx", "layer_id", "layer_number", "block_idx", "training")  # do not make it another kind


@contextmanager
def stand_in_of(network: Any) -> Iterator[Any]:
    """The network's first layers in float32, or all of them where it cannot do without the others.

    Meanwhile nothing else may use the network.
    """
    with ExitStack() as stack:
        stack.enter_context(_first_layers(network, layers_of_every_kind(network)))
        if not _runs(network):
            stack.close()  # all layers are back
        in_float32 = network.get_input_embeddings().weight.dtype == torch.float32
        if in_float32:
            yield network
        elif any(Division.of(weight) for weight in network.parameters()):  # a copy's modules would use its weights
            stack.enter_context(all_in_float32(network))
            yield network
        else:
            stand_in = float32_copy(network)
            stack.close()
            yield stand_in


@torch.no_grad()
def _runs(network: Any) -> bool:
    """Whether the network takes tokens; some have tables for all of their layers together."""
    ids = torch.arange(3, device=network.get_input_embeddings().weight.device)[None]
    try:
        body_of(network)(input_ids=ids, use_cache=False)
    except Exception:
        return False
    return True


def layers_of_every_kind(network: Any) -> int:
    """How many of the first layers there must be to have one of each kind.

    A kind is what the modules of a layer are, and their settings: whether attention slides, where it has no positions.
    """
    kinds = [_kind(layer) for layer in decoder_layers(network)[: 4 * MOST_LAYERS]]
    firsts = [kinds.index(kind) for kind in dict.fromkeys(kinds)]
    return min(max(firsts, default=0) + 2, MOST_LAYERS)  # and one more, so that something follows each


def _kind(layer: nn.Module) -> tuple[Any, ...]:
    return tuple(
        (name, type(module).__name__, *sorted(_settings(module).items())) for name, module in layer.named_modules()
    )


def _settings(module: nn.Module) -> dict[str, str]:
    return {
        key: repr(value)
        for key, value in vars(module).items()
        if isinstance(value, bool | int | float | str | None) and key not in NUMBERS_OF_A_LAYER
    }


@contextmanager
def _first_layers(network: Any, count: int) -> Iterator[None]:
    """Take all other layers out, for as long as it lasts."""
    layers, config = decoder_layers(network), network.config.get_text_config()
    if len(layers) <= count:
        yield
        return
    parent, name = next(
        (module, name)
        for module in network.modules()
        for name, child in module.named_children()
        if isinstance(child, nn.ModuleList) and list(child) == layers
    )
    whole, depth = getattr(parent, name), config.num_hidden_layers
    setattr(parent, name, nn.ModuleList(layers[:count]))
    config.num_hidden_layers = count
    try:
        yield
    finally:
        setattr(parent, name, whole)
        config.num_hidden_layers = depth
