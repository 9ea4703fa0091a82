"""A device is relied on by itself only when it computes what the CPU does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from embedgrad_cli.core.model import device_check
from embedgrad_cli.core.model.device_check import why_unfit

CPU = torch.device("cpu")


def test_a_device_that_computes_is_fit() -> None:
    assert why_unfit(CPU) is None


@pytest.mark.parametrize("factor", [1.01, torch.nan])
@pytest.mark.parametrize("number", range(4))
def test_other_numbers_are_a_reason(monkeypatch: pytest.MonkeyPatch, number: int, factor: float) -> None:
    """Logits, and the gradient of each weight."""
    usual = device_check._numbers

    def wrong(device: torch.device) -> list[Tensor]:
        return [one * (factor if i == number and device.type != "cpu" else 1) for i, one in enumerate(usual(CPU))]

    monkeypatch.setattr(device_check, "_numbers", wrong)
    assert f"{factor - 1:.1%}" in (why_unfit(torch.device("meta")) or "")
