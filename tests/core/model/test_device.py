"""The device that a model is loaded on."""

from __future__ import annotations

import pytest
import torch

from embedgrad_cli.core.model.device import pick_device
from embedgrad_cli.errors import UserError

CPU = torch.device("cpu")


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"device=cuda:99 .*\w\. Use device=cpu"):
        pick_device("cuda:99")
    assert pick_device("cpu") == CPU


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
    monkeypatch.setattr("embedgrad_cli.core.model.device.why_unfit", lambda device: None)
    monkeypatch.setattr(torch, "empty", lambda *_, device: None)
    assert pick_device("auto").type == "cuda"


def test_what_was_not_named_by_the_user_is_tried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU of a process among several, of which none can go on with a CPU alone."""
    monkeypatch.setattr("embedgrad_cli.core.model.device.why_unfit", lambda device: "it is broken")
    assert pick_device("cpu") == CPU
    with pytest.raises(UserError, match=r"device=cpu.*broken"):
        pick_device("cpu", is_trusted=False)
