from __future__ import annotations

import pytest
import torch
from tests.conftest import make_model

from embedgrad_cli.core import losses
from embedgrad_cli.core.losses import frozen_head_losses


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk", [1, 3, 10_000])
def test_losses_and_gradient_are_cross_entropys(bias: bool, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "CHUNK_ROWS", chunk)
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 20, bias=bias).requires_grad_(False)
    hidden = torch.randn(7, 8, requires_grad=True)
    targets, weights = torch.randint(20, (7,)), torch.rand(7)
    expected = torch.nn.functional.cross_entropy(layer(hidden), targets, reduction="none")
    (gradient,) = torch.autograd.grad((expected * weights).sum(), hidden)
    actual = frozen_head_losses(hidden, layer, targets)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(torch.autograd.grad((actual * weights).sum(), hidden)[0], gradient)


def test_a_head_that_caps_its_logits_is_not_taken_for_a_plain_one() -> None:
    assert make_model("qwen2").has_plain_head
    assert not make_model("gemma2").has_plain_head
