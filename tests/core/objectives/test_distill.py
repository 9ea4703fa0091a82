"""The equation, on numbers of no model; tests/core/passes/test_token_likelihoods.py has those of models."""

from __future__ import annotations

import pytest
import torch
from tests.core.objectives.test_choice import Numbers
from torch import Tensor
from torch.nn.functional import kl_div

from embedgrad_cli.core.objectives import Distill, SoftTargets
from embedgrad_cli.core.objectives.distill import SMALLEST_REST
from embedgrad_cli.core.text.marked_tokens import Example

TARGETS = {"a": (5, 6), "b": (7,)}
BATCH = [Example(name, (1, 2), target) for name, target in TARGETS.items()]


class Likelihoods(Numbers):
    """Passes whose tokens have these log-likelihoods, whatever they are."""

    def token_likelihoods(self, ids: Tensor) -> Tensor:
        assert ids.shape == self.numbers.shape
        return self.numbers


def shares(seed: int, spread: float = 1.0) -> Tensor:
    """Of 9 tokens in three places."""
    return (spread * torch.randn(3, 9, generator=torch.Generator().manual_seed(seed))).softmax(-1)


def objective(teacher: Tensor, k: int) -> Distill:
    likeliest = teacher.topk(k)
    parts = zip(likeliest.indices.split([2, 1]), likeliest.values.log().split([2, 1]), strict=True)
    return Distill({name: SoftTargets(*part) for name, part in zip(TARGETS, parts, strict=True)})


def coarse(probabilities: Tensor, ids: Tensor) -> Tensor:
    """Some tokens, and all others as one."""
    some = probabilities.gather(1, ids)
    return torch.cat([some, 1 - some.sum(1, keepdim=True)], dim=1)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_it_is_the_divergence_over_the_tokens_and_the_rest_per_token(k: int) -> None:
    teacher, prompt = shares(0), shares(1)
    distill, ids = objective(teacher, k), teacher.topk(k).indices
    assert (1 - teacher.gather(1, ids).sum(1)).min() > SMALLEST_REST
    expected = kl_div(coarse(prompt, ids).log(), coarse(teacher, ids), reduction="sum")
    total = distill.total(BATCH, Likelihoods(prompt.gather(1, ids).log()))
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert distill.num_terms(BATCH) == 3


@pytest.mark.parametrize("k", [1, 3, 8, 9])
def test_what_the_teacher_predicts_has_neither_loss_nor_gradient(k: int) -> None:
    teacher = shares(0)
    logits = teacher.log().requires_grad_()
    ids = teacher.topk(k).indices
    loss = objective(teacher, k).total(BATCH, Likelihoods(logits.log_softmax(-1).gather(1, ids)))
    loss.backward()
    assert loss.abs() < 1e-6
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6


def test_a_rest_that_is_rounding_stays_finite() -> None:
    teacher, prompt = shares(0, spread=60.0), shares(1, spread=60.0)
    ids = teacher.topk(3).indices
    likelihoods = prompt.clamp(min=1e-30).log().gather(1, ids).requires_grad_()
    loss = objective(teacher.clamp(min=1e-30), 3).total(BATCH, Likelihoods(likelihoods))
    loss.backward()
    assert loss.isfinite()
    assert likelihoods.grad is not None
    assert likelihoods.grad.isfinite().all()
