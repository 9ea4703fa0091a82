"""Whether a layer's backward pass is that of what it computes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from embedgrad_cli.core.kernels.packed_linear import is_plain, why_not_linear

CPU = torch.device("cpu")


class RoundsItsInputs(nn.Linear):
    """As LLM.int8 does, with the gradient of the weights."""

    def forward(self, input: Tensor) -> Tensor:
        step = input.abs().amax(-1, keepdim=True) / 127 + 1e-9
        return super().forward(input + ((input / step).round() * step - input).detach())


class ForInference(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.detach())


def test_a_linear_layer_is_linear() -> None:
    for layer in (nn.Linear(64, 32), nn.Linear(64, 32, bias=False, dtype=torch.bfloat16)):
        assert why_not_linear(layer.requires_grad_(False), CPU) is None


def test_what_is_not_is_said() -> None:
    assert "off" in str(why_not_linear(RoundsItsInputs(64, 32).requires_grad_(False), CPU))
    assert "no gradient" in str(why_not_linear(ForInference(64, 32).requires_grad_(False), CPU))


def test_packed_weights_are_no_plain_ones() -> None:
    assert is_plain(nn.Linear(4, 4, dtype=torch.float16).weight)
    assert not is_plain(nn.Parameter(torch.zeros(4, 4, dtype=torch.uint8), requires_grad=False))
    assert not is_plain(torch.zeros(4, 4).to(torch.float8_e4m3fn))
    assert not is_plain(torch.zeros(4, 4).as_subclass(type("Packed", (Tensor,), {})))
    assert not is_plain(None)
