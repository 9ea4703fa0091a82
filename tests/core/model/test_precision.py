"""What `model.dtype=auto` comes to on a CPU: half precision only where it is faster, with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import make_network

from embedgrad_cli.config.schema import ModelConfig
from embedgrad_cli.core.model import load, precision
from embedgrad_cli.core.model.load import load_model
from embedgrad_cli.core.model.precision import precision_on_gpu, settle_precision, settle_precision_on_gpu
from embedgrad_cli.core.model.unloaded import load_unloaded
from embedgrad_cli.evaluation.digests import dated
from embedgrad_cli.storage.run_digests import RunDigests


def let_take(monkeypatch: pytest.MonkeyPatch, half: float, single: float) -> None:
    seconds = {torch.bfloat16: half, torch.float16: half, torch.float32: single}
    monkeypatch.setattr(precision, "_seconds", lambda weight: seconds[weight.dtype])


@pytest.mark.parametrize(("half", "expected"), [(0.5, torch.bfloat16), (1.0, torch.float32), (4.0, torch.float32)])
def test_the_faster_precision_with_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch, half: float, expected: torch.dtype
) -> None:
    network = make_network("llama", 100).bfloat16()
    before = {name: tensor.float() for name, tensor in network.state_dict().items()}
    let_take(monkeypatch, half, single=1.0)
    settle_precision(network)
    assert {parameter.dtype for parameter in network.parameters()} == {expected}
    assert all(torch.equal(tensor.float(), before[name]) for name, tensor in network.state_dict().items())


def test_what_is_stored_in_float32_is_not_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    network = make_network("llama", 100)
    let_take(monkeypatch, half=0.1, single=1.0)
    settle_precision(network)
    assert network.dtype == torch.float32


def test_what_is_stored_in_float64_runs_in_float32(tmp_path: Path, model_folder: Path) -> None:
    device, settings = torch.device("cpu"), ModelConfig(str(model_folder), None, "float32", "auto", False)
    stored = load_model(settings, device)
    stored.network.double().save_pretrained(tmp_path)
    stored.tokenizer.save_pretrained(tmp_path)
    settings = ModelConfig(str(tmp_path), None, "auto", "auto", False)
    assert load_model(settings, device).dtype_name == "float32"
    assert load_unloaded(settings, "cpu").dtype_name == "float32"


def test_a_precision_that_is_named_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model_folder: Path
) -> None:
    device, settings = torch.device("cpu"), ModelConfig(str(model_folder), None, "bfloat16", "auto", False)
    stored = load_model(settings, device)
    stored.network.save_pretrained(tmp_path)
    stored.tokenizer.save_pretrained(tmp_path)
    let_take(monkeypatch, half=2.0, single=1.0)
    auto = ModelConfig(str(tmp_path), None, "auto", "auto", False)
    assert load_model(auto, device).dtype_name == "float32"
    assert load_model(ModelConfig(str(tmp_path), None, "bfloat16", "auto", False), device).dtype_name == "bfloat16"
    before = RunDigests(split="", rendering="", dtype="bfloat16")  # a run that began on another machine goes on in it
    assert load_model(dated(auto, before), device).dtype_name == "bfloat16"


@pytest.mark.parametrize(
    ("stored", "with_bfloat16", "without"),
    [
        (torch.float32, torch.bfloat16, torch.float32),
        (torch.bfloat16, torch.bfloat16, torch.float32),
        (torch.float16, torch.float16, torch.float16),
    ],
)
def test_on_cuda_it_is_bfloat16(stored: torch.dtype, with_bfloat16: torch.dtype, without: torch.dtype) -> None:
    assert precision_on_gpu(stored, has_bfloat16=True) == with_bfloat16
    assert precision_on_gpu(stored, has_bfloat16=False) == without


def test_on_cuda_positions_stay_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    network = make_network("llama", 100)
    positions = network.model.rotary_emb.inv_freq.clone()
    monkeypatch.setattr(precision, "has_bfloat16", lambda: True)
    settle_precision_on_gpu(network)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.bfloat16}
    assert torch.equal(network.model.rotary_emb.inv_freq, positions)
    assert network.lm_head.weight.dtype == network.dtype == torch.bfloat16


def test_a_model_for_cuda_is_rounded_before_it_is_moved(monkeypatch: pytest.MonkeyPatch, model_folder: Path) -> None:
    seen = []

    def moved(network: Any, *_: object) -> None:
        seen.append(network.dtype)
        raise RuntimeError("no GPU here")

    monkeypatch.setattr(load, "_move", moved)
    for dtype in ("auto", "float32"):
        with pytest.raises(RuntimeError):
            load_model(ModelConfig(str(model_folder), None, dtype, "auto", False), torch.device("cuda"))  # type: ignore[arg-type]
    assert seen == [torch.bfloat16, torch.float32]


def test_the_clock_sees_products() -> None:
    assert 0 < precision._seconds(torch.ones(64, 32)) < 1
