"""Weights in half precision, arithmetic in float32."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tests.conftest import make_model

from embedgrad_cli.core.kernels import float32_weights as float32_module
from embedgrad_cli.core.kernels.activation_checkpointing import body_of
from embedgrad_cli.core.kernels.float32_weights import float32_weights


@pytest.mark.parametrize("architecture", ["qwen2", "gemma2", "gpt2"])
def test_it_is_the_network_in_float32_and_leaves_it_as_it_was(architecture: str) -> None:
    model = make_model(architecture)
    network = model.network.to(torch.bfloat16)
    kept = {name: (p, p.data_ptr(), p.detach().clone()) for name, p in network.named_parameters()}
    embeds = model.embed(torch.arange(9)[None]).float().requires_grad_()

    def states_and_gradient(body: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
        states = body(inputs_embeds=embeds, use_cache=False).last_hidden_state
        return states, torch.autograd.grad(states.square().sum(), embeds)[0]

    with float32_weights(network):
        states = body_of(network)(inputs_embeds=embeds, use_cache=False).last_hidden_state
    gradient = torch.autograd.grad(states.square().sum(), embeds)[0]  # after the weights are half again
    expected = states_and_gradient(body_of(copy.deepcopy(network).float()))
    assert torch.equal(states, expected[0])
    assert torch.equal(gradient, expected[1])
    for name, parameter in network.named_parameters():
        assert (parameter, parameter.data_ptr()) == kept[name][:2]
        assert torch.equal(parameter, kept[name][2])


def test_no_float32_weights_are_kept_for_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of a layer is activations and the half-precision weights themselves."""
    network = make_model("llama").network.to(torch.bfloat16)
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    shapes = {tuple(p.shape) for layer in network.model.layers for p in layer.parameters() if p.dim() == 2}
    kept: list[Any] = []

    def hooks(casts: float32_module.Casts) -> tuple[Any, Any]:
        pack, unpack = make_hooks(casts)
        return lambda tensor: kept.append(pack(tensor)) or kept[-1], unpack  # type: ignore[func-returns-value]

    make_hooks = float32_module._hooks
    monkeypatch.setattr(float32_module, "_hooks", hooks)
    with float32_weights(network):
        body_of(network)(inputs_embeds=torch.zeros(1, 9, 32, requires_grad=True), use_cache=False)
    of_weights = [packed[0] for packed in kept if isinstance(packed, tuple)]
    assert len(of_weights) >= 7 * len(network.model.layers)
    assert {w.untyped_storage().data_ptr() for w in of_weights} <= weights
    tensors = [packed for packed in kept if isinstance(packed, torch.Tensor)]
    assert not [t for t in tensors if tuple(t.shape) in shapes or tuple(t.t().shape if t.dim() == 2 else ()) in shapes]


def test_an_error_inside_leaves_the_weights_half() -> None:
    network = make_model("llama").network.to(torch.bfloat16)
    with pytest.raises(RuntimeError), float32_weights(network):
        body_of(network)(inputs_embeds=torch.zeros(1, 9, 3))
    assert {p.dtype for p in network.parameters()} == {torch.bfloat16}
