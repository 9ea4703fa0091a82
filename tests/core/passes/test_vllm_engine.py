"""With what arguments vLLM is started, and when again. A stand-in is in its place."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.vllm_stand_in import SamplingParams, stand_in

from embedgrad_cli.config.schema import ModelConfig
from embedgrad_cli.core.passes.vllm_decoder import VllmEngine


def engine_on(device: str, folder: Path, arguments: dict[str, Any], shares_device: bool = True) -> VllmEngine:
    network = SimpleNamespace(config=SimpleNamespace(architectures=["Qwen2ForCausalLM"]))
    on_device = {"device": torch.device(device), "network": network, "dtype_name": "bfloat16"}
    model: Any = SimpleNamespace(**on_device, revision=None, max_length=512)
    config = ModelConfig(str(folder), None, "auto", "auto", False)
    return VllmEngine(model, config, 10, arguments, shares_device)


def answer(engine: VllmEngine, length: int) -> None:
    params = SamplingParams(1, 0.0, 1.0, None, 1.0, 2, [], True, [])
    engine.generate([torch.zeros(length, 32)], [params], 2)


@pytest.mark.parametrize(
    ("device", "shares_device", "given", "expected"),
    [
        ("cuda", True, {}, {"enable_sleep_mode": True, "gpu_memory_utilization": 0.5}),
        ("cuda", True, {"gpu_memory_utilization": 0.3}, {"enable_sleep_mode": True, "gpu_memory_utilization": 0.3}),
        ("cuda", False, {}, {}),  # an evaluation does nothing else in between
        ("cpu", True, {}, {}),
    ],
)
def test_a_gpu_is_shared_with_training(
    device: str,
    shares_device: bool,
    given: dict[str, Any],
    expected: dict[str, Any],
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = stand_in(monkeypatch)
    engine = engine_on(device, model_folder, given, shares_device)
    with engine.running():
        answer(engine, 8)
        engine.rest()
        engine.rest()
        answer(engine, 8)
    (llm,) = made
    assert {name: llm.arguments.get(name) for name in expected} == expected
    assert ("enable_sleep_mode" in llm.arguments) == ("enable_sleep_mode" in expected)
    assert llm.calls == ([1, "sleep", "wake", 1] if expected else [1, 1])
    assert llm.arguments["dtype"] == "bfloat16"


def test_a_longer_conversation_starts_it_again(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more often than it has to, and not beyond what the model was built for."""
    made = stand_in(monkeypatch)
    engine = engine_on("cpu", model_folder, {})
    with engine.running():
        for length in (8, 98, 110, 510):
            answer(engine, length)
    assert [llm.arguments["max_model_len"] for llm in made] == [10, 125, 512]
    assert not any(llm.llm_engine.engine_core.is_running for llm in made)
