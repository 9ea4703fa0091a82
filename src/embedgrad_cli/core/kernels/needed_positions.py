"""Compute only at positions whose output is read: the last layer's MLP, and the output layer.

Both are done by hooks in front of the modules themselves, so that whatever a model does around them (Gemma caps its
logits, Cohere scales them) still happens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from embedgrad_cli.core.kernels.activation_checkpointing import decoder_layers


@contextmanager
def mlp_only_at(network: nn.Module, positions: Tensor) -> Iterator[None]:
    """Let the last layer's MLP see only some positions of the flattened batch; its output is zero at the others.

    The layers before need every position for the keys and values that follow; after the last one nothing follows.
    """
    layers = decoder_layers(network)
    mlp = getattr(layers[-1], "mlp", None) if layers else None
    if mlp is None:
        yield
        return
    shapes = []

    def gather(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if len(args) != 1 or kwargs:  # an MLP that takes more than the hidden states keeps all positions
            return args, kwargs
        shapes.append(args[0].shape)
        return (args[0].flatten(0, 1)[positions.to(args[0].device)].unsqueeze(0),), kwargs

    def scatter(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if not shapes:
            return output
        shape = shapes.pop()
        if not isinstance(output, Tensor):  # experts also return how tokens were routed
            first, *rest = output
            return (_scatter(first, positions, shape), *rest)
        return _scatter(output, positions, shape)

    handles = [mlp.register_forward_pre_hook(gather, with_kwargs=True), mlp.register_forward_hook(scatter)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def logits_only_at(network: Any, positions: Tensor) -> Iterator[None]:
    """Let only some positions of the flattened batch reach the output layer."""
    layer = network.get_output_embeddings()
    handle = layer.register_forward_pre_hook(
        lambda _, args: (args[0].flatten(0, 1)[positions.to(args[0].device)].unsqueeze(0),)
    )
    try:
        yield
    finally:
        handle.remove()


def _scatter(output: Tensor, positions: Tensor, shape: Any) -> Tensor:
    """`[1, len(positions), hidden_size]` → `shape`, zero elsewhere."""
    flat = output.new_zeros(shape[0] * shape[1], shape[2])
    return flat.index_copy(0, positions.to(output.device), output.squeeze(0)).view(shape)
