"""Activation checkpointing (Chen et al. 2016) of decoder layers that read a cache.

The models' own switch drops the cache, and with it the shared prefix (trunk). Here every decoder layer is checkpointed
from outside, over a cache that is only read (`kv_cache`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel


@contextmanager
def checkpointed_layers(network: nn.Module) -> Iterator[None]:
    """Within it, every decoder layer keeps its input alone and runs again in the backward pass."""
    layers: list[Any] = list(decoder_layers(network))
    hooked = [vars(layer).get("forward") for layer in layers]  # by accelerate, say
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer, before in zip(layers, hooked, strict=True):
            del layer.forward  # the class's own shows again
            if before is not None:
                layer.forward = before


def decoder_layers(network: Any) -> list[nn.Module]:
    """The stack of equal blocks that a causal language model consists of."""
    depth = network.config.get_text_config().num_hidden_layers
    stacks = [m for m in network.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    return list(stacks[0]) if stacks else []


def body_of(network: Any) -> Any:
    """The network without its output layer, which gives hidden states.

    `base_model` of transformers is the network itself where a family's prefix names no part of it (Llama 4 for text).
    """
    if network.base_model is not network:
        return network.base_model
    return next((part for part in network.children() if isinstance(part, PreTrainedModel)), network)
