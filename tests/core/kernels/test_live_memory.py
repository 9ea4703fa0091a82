"""Memory that is counted without computing anything."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.conftest import make_model
from tests.core.passes.parity import encoded_rows
from torch import nn

from embedgrad_cli.core.kernels.live_memory import LOGITS, OTHER, LiveMemory
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt


class Network(nn.Module):
    """Something with an output layer of seven tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 7, device="meta")

    def get_output_embeddings(self) -> nn.Linear:
        return self.head


def zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, device="meta")


def test_what_is_freed_no_longer_counts_and_the_peak_stays() -> None:
    with LiveMemory(Network(), "cpu") as live:
        first = zeros(10)
        second = zeros(20)
        del first
        assert live.now == 80
        third = zeros(5)
    assert live.peak == 120
    del second, third
    assert live.now == 0


def test_a_view_is_not_counted_again_and_weights_not_at_all() -> None:
    network = Network()
    with LiveMemory(network, "cpu") as live:
        tensor = zeros(4, 3)
        views = tensor.view(12), tensor.T, network.head.weight.T
        assert live.now == 48
    assert len(views) == 3


def test_labels() -> None:
    with LiveMemory(Network(), "cpu") as live:
        with live.labelled("trunk"):
            trunk = zeros(2)
        logits, other = zeros(3, 7), zeros(1)
    assert live.at_peak == {"trunk": 8, LOGITS: 84, OTHER: 4}
    del trunk, logits, other


def test_attention_keeps_no_scores() -> None:
    """Its saved tensors grow with the width, not with its square."""

    def kept(width: int) -> int:
        query = torch.zeros(1, 2, width, 4, device="meta", requires_grad=True)
        with LiveMemory(Network(), "cuda") as live:
            output = nn.functional.scaled_dot_product_attention(query * 1, query * 1, query * 1)
        assert output.requires_grad
        return live.now

    assert kept(256) == 2 * kept(128)


@pytest.mark.parametrize("architecture", ["qwen2", "gemma", "gpt2", "mistral", "mamba"])
@pytest.mark.parametrize("checkpoints", [False, True])
def test_a_step_without_numbers_holds_what_one_with_numbers_does(architecture: str, checkpoints: bool) -> None:
    """Counted is the product's own step, on the CPU and on the meta device. Masks and indices may differ a little."""
    if checkpoints and architecture == "mamba":
        pytest.skip("the plain forward keeps all")
    model = make_model(architecture)
    found = peak_of_a_step(model, checkpoints)
    model.network.to("meta")
    assert peak_of_a_step(model, checkpoints) == pytest.approx(found, rel=0.05)
    assert found > 50_000


def peak_of_a_step(model: LanguageModel, checkpoints: bool) -> int:
    examples = encoded_rows(model, "system")
    model = replace(model)  # what it found out with numbers is not handed on
    with LiveMemory(model.network, "cpu"):
        _ = model.has_plain_head
    prompt = SoftPrompt.from_seed(examples.slots, model)
    shares = model.network.config.model_type != "mamba"
    with LiveMemory(model.network, "cpu") as live:
        forward = Forward(model, examples.examples, shares, checkpoint_activations=checkpoints)
        forward.accumulate_gradient(examples.examples, prompt)
    return live.peak
