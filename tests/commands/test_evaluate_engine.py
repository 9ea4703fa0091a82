"""`evaluate engine=vllm`: what vLLM is given and what becomes of its answers. `make test-serving` has the real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.commands.apples import run_on_apples
from tests.conftest import evaluate_config, samples
from tests.vllm_stand_in import stand_in

from embedgrad_cli.commands import evaluate
from embedgrad_cli.config import plugins
from embedgrad_cli.config.compose import Request, check_line
from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.storage.engine_record import EngineRecord
from embedgrad_cli.storage.results_record import Results

TASK = ["model=tiny", "template=system", "task=word-problems", "prompt=step-by-step", "arms=[none]"]


@pytest.fixture
def trained(tmp_path: Path, model_folder: Path) -> OptimizeConfig:
    return run_on_apples(tmp_path, model_folder, train__steps=3)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [None, ["a"]])
def test_the_answers_are_those_of_our_own_decoding(
    trained: OptimizeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: list[str] | None
) -> None:
    made = stand_in(monkeypatch)
    artifact = f"{trained.output_dir}/prompt.safetensors"
    arms: dict[str, Any] = {"arms": ["none", "seed", "optimized", "bare"], "task__stop": stop}
    evaluate.run(evaluate_config(trained, tmp_path / "ours", artifact, **arms))
    assert made == []
    assert Results.read(tmp_path / "ours/results.json").engine is None
    engine = {"engine": "vllm", "engine_args": {"enforce_eager": True}}
    evaluate.run(evaluate_config(trained, tmp_path / "theirs", artifact, **arms, **engine))
    ours, theirs = samples(tmp_path / "ours"), samples(tmp_path / "theirs")
    assert theirs == ours
    if stop:
        assert "stop" in {line["ending"] for line in ours}
    engine_record = Results.read(tmp_path / "theirs/results.json").engine
    assert engine_record == EngineRecord(name="vllm", version="0.0.0")
    (llm,) = made
    assert not llm.llm_engine.engine_core.is_running
    assert llm.asked == 4 * 6
    assert llm.arguments["enable_prompt_embeds"]
    assert not llm.arguments["enable_prefix_caching"]
    assert llm.arguments["enforce_eager"]
    longest = max(line["tokens"] for line in ours) + 8
    assert llm.arguments["max_model_len"] > longest
    evaluate.run(evaluate_config(trained, tmp_path / "theirs", artifact, **arms, **engine))
    assert len(made) == 1, "a finished run starts no engine"


def test_vllm_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_is_there", lambda module: False)
    problems = check_line(Request("evaluate", [*TASK, "engine=vllm"])).problems
    assert problems == ["engine=vllm is not installed: pip install 'embedgrad[vllm]'."]


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["engine=vllm", "task=reviews"], "engine"),
        (["engine=vllm", "server=http://127.0.0.1:8000"], "engine"),
        (["engine=vllm", "+engine_args={dtype: float16}"], "engine_args.dtype"),
        (["engine=vllm", "+engine_args={trust_remote_code: true}"], "engine_args.trust_remote_code"),
        (["+engine_args={enforce_eager: true}"], "engine_args"),
        (["engine=vllm", "model.quantization=nf4"], "model.quantization"),
        (["engine=sglang"], "engine"),
    ],
)
def test_what_the_engine_cannot_do(words: list[str], key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_is_there", lambda module: True)
    problems = check_line(Request("evaluate", [*TASK, *words])).problems
    assert len(problems) == 1, problems
    assert problems[0].startswith(f"{key}:")
