from __future__ import annotations

import pytest
import torch
from tests.conftest import make_model
from torch.nn.functional import cross_entropy

from embedgrad_cli.core.kernels import frozen_head_loss as losses
from embedgrad_cli.core.kernels.frozen_head_loss import frozen_head_likelihoods, frozen_head_losses


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 10_000])
@pytest.mark.parametrize("vocabulary", [20, 1_001])  # in parts, and in one
def test_losses_and_gradient_are_cross_entropys(
    bias: bool, rows: int, vocabulary: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOGIT_ROWS", "ATTENTION_ROWS"):
        monkeypatch.setattr(losses, name, rows)
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, vocabulary, bias=bias).requires_grad_(False)
    hidden = torch.randn(7, 8, requires_grad=True)
    targets, weights = torch.randint(vocabulary, (7,)), torch.rand(7)
    expected = cross_entropy(layer(hidden), targets, reduction="none")
    (gradient,) = torch.autograd.grad((expected * weights).sum(), hidden)
    actual = frozen_head_losses(hidden, layer, targets)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(torch.autograd.grad((actual * weights).sum(), hidden)[0], gradient)
    with torch.no_grad():
        torch.testing.assert_close(frozen_head_losses(hidden, layer, targets), expected.detach())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("looked_up", [1, 12, 10_000])
def test_likelihoods_and_gradient_are_log_softmax_s(
    bias: bool, looked_up: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "LOOKED_UP", looked_up)
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 100, bias=bias).requires_grad_(False)
    hidden = torch.randn(7, 8, requires_grad=True)
    ids, weights = torch.rand(7, 100).argsort(dim=1)[:, :5], torch.randn(7, 5)
    expected = layer(hidden).log_softmax(-1).gather(1, ids)
    (gradient,) = torch.autograd.grad((expected * weights).sum(), hidden)
    actual = frozen_head_likelihoods(hidden, layer, ids)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(torch.autograd.grad((actual * weights).sum(), hidden)[0], gradient)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_a_temperature_divides_the_logits(bias: bool, temperature: float) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 50, bias=bias).requires_grad_(False)
    hidden, targets = torch.randn(7, 8, requires_grad=True), torch.randint(50, (7,))
    expected = cross_entropy(layer(hidden) / temperature, targets, reduction="none")
    (gradient,) = torch.autograd.grad(expected.sum(), hidden)
    actual = frozen_head_losses(hidden, layer, targets, temperature)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(torch.autograd.grad(actual.sum(), hidden)[0], gradient)


@pytest.mark.parametrize("bias", [False, True])
def test_half_precision_stays_near_the_exact_loss_and_gradient(bias: bool) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 2_000, bias=bias, dtype=torch.bfloat16).requires_grad_(False)
    hidden = torch.randn(40, 64, dtype=torch.bfloat16, requires_grad=True)
    targets = torch.randint(2_000, (40,))
    exact = hidden.detach().float().requires_grad_(True)
    expected = cross_entropy(layer.float()(exact), targets, reduction="none")
    (gradient,) = torch.autograd.grad(expected.sum(), exact)
    actual = frozen_head_losses(hidden, layer.bfloat16(), targets)
    torch.testing.assert_close(actual, expected, rtol=1e-2, atol=0.0)
    error = torch.autograd.grad(actual.sum(), hidden)[0].float() - gradient
    assert error.norm() <= 1e-2 * gradient.norm()


def test_a_head_that_caps_its_logits_is_not_taken_for_a_plain_one() -> None:
    assert make_model("qwen2").has_plain_head
    assert not make_model("gemma2").has_plain_head
