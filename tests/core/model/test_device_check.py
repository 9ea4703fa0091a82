"""A device is relied on by itself only when it computes what the CPU does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from embedgrad_cli.core.model import device_check
from embedgrad_cli.core.model.device_check import why_unfit
from embedgrad_cli.core.model.language_model import pick_device
from embedgrad_cli.errors import UserError

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


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_auto_leaves_out_a_gpu_that_cannot_compute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where the driver is there and PyTorch was not built for the GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto") == CPU
    assert "leaves out cuda" in caplog.text
    assert "leaves out mps" in caplog.text


def test_auto_takes_the_first_that_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr("embedgrad_cli.core.model.language_model.why_unfit", lambda device: None)
    monkeypatch.setattr(torch, "empty", lambda *_, device: None)
    assert pick_device("auto").type == "cuda"


def test_what_was_not_named_by_the_user_is_tried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU of a process among several, of which none can go on with a CPU alone."""
    monkeypatch.setattr("embedgrad_cli.core.model.language_model.why_unfit", lambda device: "it is broken")
    assert pick_device("cpu") == CPU
    with pytest.raises(UserError, match=r"device=cpu.*broken"):
        pick_device("cpu", is_trusted=False)
