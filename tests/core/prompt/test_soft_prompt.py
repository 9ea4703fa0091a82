from __future__ import annotations

import pytest
import torch
from tests.conftest import make_model

from embedgrad_cli.config.schema import TrustRegionConfig
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt, measure_drift
from embedgrad_cli.core.text.marked_tokens import Slots
from embedgrad_cli.training.trust_region import TrustRegion


@pytest.mark.parametrize("architecture", ["qwen2", "gemma"])
def test_an_unmoved_prompt_has_no_drift(architecture: str) -> None:
    model = make_model(architecture)
    prompt = SoftPrompt.from_seed(Slots(((5, 9), (30,))), model)
    drift = measure_drift(prompt, model)
    assert drift.relative_l2 == [0, 0, 0]
    assert drift.cosine == pytest.approx([1, 1, 1])
    assert drift.nearest == [5, 9, 30]
    assert drift.nearest_kept == 3
    assert [len(part) for part in prompt.split(prompt.vectors)] == [2, 1]


def test_drift_finds_the_nearest_token() -> None:
    model = make_model()
    seed = SoftPrompt.from_seed(Slots(((5, 9),)), model)
    other = model.embed(torch.tensor([5, 77]))
    drift = measure_drift(SoftPrompt(seed.slots, seed.seed, other), model)
    assert drift.nearest == [5, 77]
    assert drift.nearest_kept == 1


def test_ball_bounds_every_vector_and_leaves_those_inside_alone() -> None:
    model = make_model()
    prompt = SoftPrompt.from_seed(Slots(((5, 9),)), model)
    region = TrustRegion(TrustRegionConfig("ball", radius=0.5, weight=0.0), model.embedding_rms)
    limit = 0.5 * model.embedding_rms * model.hidden_size**0.5
    with torch.no_grad():
        prompt.vectors[0] += 10.0
        prompt.vectors[1, 0] += limit / 2
    inside = prompt.vectors[1].clone()
    region.project(prompt)
    assert (prompt.vectors[0] - prompt.seed[0]).norm().item() == pytest.approx(limit, rel=1e-5)
    assert torch.equal(prompt.vectors[1], inside)


def test_penalty_pulls_towards_the_seed() -> None:
    model = make_model()
    prompt = SoftPrompt.from_seed(Slots(((5, 9),)), model)
    with torch.no_grad():
        prompt.vectors += 0.1
    for kind, moves in [("penalty", True), ("none", False)]:
        prompt.vectors.grad = torch.zeros_like(prompt.vectors)
        TrustRegion(TrustRegionConfig(kind, radius=0.5, weight=1.0), 1.0).add_penalty_gradient(prompt)
        assert bool((prompt.vectors.grad > 0).all()) is moves


def test_the_gradient_is_the_same_to_the_last_bit_every_time() -> None:
    """On as many tokens as make PyTorch divide the work among threads."""
    model = make_model()
    prompt = SoftPrompt.from_seed(Slots((tuple(range(5, 20)),)), model)
    generator = torch.Generator().manual_seed(0)
    tokens = -1 - torch.randint(prompt.slots.num_tokens, (64, 100), generator=generator)
    weights = torch.randn(*tokens.shape, model.hidden_size, generator=generator)
    losses = ((prompt.embed(tokens, model) * weights).sum() for _ in range(50))
    gradients = [torch.autograd.grad(loss, prompt.vectors)[0] for loss in losses]
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
