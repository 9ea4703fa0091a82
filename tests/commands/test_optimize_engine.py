"""`optimize engine=vllm`: training is ours, answers are vLLM's. `make test-serving` has the real one."""

from __future__ import annotations

import copy
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tests.commands.apples import apples_config
from tests.conftest import samples
from tests.vllm_stand_in import LLM, ModelRegistry, stand_in

from embedgrad_cli.commands import optimize, run_job
from embedgrad_cli.config import plugins
from embedgrad_cli.config.compose import Request, check_line
from embedgrad_cli.config.schema import EvaluateConfig, OptimizeConfig
from embedgrad_cli.errors import EngineError, ModelError, UserError
from embedgrad_cli.storage.artifact_header import read_header
from embedgrad_cli.storage.interrupts import Stopped

OF_A_PROCESS = ("peak_memory_bytes", "timing", "distillation")
Make = Callable[..., OptimizeConfig]


@pytest.fixture
def config(tmp_path: Path, model_folder: Path) -> Make:
    """A run of four steps with a validation after every second, in a folder by its name."""

    def make(name: str, **changes: Any) -> OptimizeConfig:
        data = tmp_path / "data"
        return apples_config(tmp_path / name, data, model_folder, **{"train__steps": 4, **changes})

    return make


def results(run: OptimizeConfig) -> dict[str, Any]:
    found = json.loads((Path(run.output_dir) / "results.json").read_text())
    return {key: value for key, value in found.items() if key not in OF_A_PROCESS}


def metrics(run: OptimizeConfig) -> list[dict[str, Any]]:
    lines = map(json.loads, (Path(run.output_dir) / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def assert_same(a: OptimizeConfig, b: OptimizeConfig) -> None:
    tensors = [load_file(Path(run.output_dir) / "prompt.safetensors") for run in (a, b)]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(one.equal(tensors[1][name]) for name, one in tensors[0].items())
    assert samples(Path(a.output_dir)) == samples(Path(b.output_dir))
    assert metrics(a) == metrics(b)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["gold", "verified", "distill"])
def test_the_run_is_that_of_our_own_decoding(config: Make, objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where answers are trained on, if they are greedy."""
    of_answers = {"verified": {"samples": 1, "temperature": 0.0, "keep": 1, "rounds": 2, "unsolved": "gold"}}
    teacher = {"distill": {"teacher": "Count the apples of every person in the text, then say how many.", "samples": 1}}
    settings = {"name": objective, **of_answers.get(objective, {}), **teacher.get(objective, {})}
    changes = {f"objective__{key}": value for key, value in settings.items()}
    made = stand_in(monkeypatch)
    ours = config("ours", **changes)
    optimize.run(ours)
    assert made == []
    theirs = config("theirs", **changes, engine="vllm", engine_args={"enable_sleep_mode": True})
    optimize.run(theirs)
    assert_same(ours, theirs)
    found = results(theirs)
    assert found.pop("engine") == {"name": "vllm", "version": "0.0.0"}
    assert found == results(ours)
    artifact = Path(theirs.output_dir) / "prompt.safetensors"
    assert read_header(artifact).libraries["vllm"] == "0.0.0"
    evaluation = check_line(Request("evaluate", [f"artifact={artifact}"])).config
    assert isinstance(evaluation, EvaluateConfig)
    assert evaluation.engine is None, "whoever evaluates it need not have vLLM"
    assert [llm for llm in made if llm.llm_engine.engine_core.is_running] == []
    # A teacher's conversations are longer than the seed's.
    assert len(made) == (2 if objective == "distill" else 1)
    optimize.run(theirs)
    assert len(made) == (2 if objective == "distill" else 1), "a finished run starts no engine"


@pytest.mark.slow
def test_it_sleeps_while_steps_are_made(config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stand_in(monkeypatch)
    optimize.run(config("run", engine="vllm", engine_args={"enable_sleep_mode": True}))
    (llm,) = made
    validated = [6, "sleep", "wake"]
    assert llm.calls == [*validated * 3, 6, 6, 6, "sleep"]  # at steps 0, 2 and 4; then three arms

    optimize.run(config("awake", engine="vllm"))
    assert "sleep" not in made[1].calls, "a CPU's memory is not shared by sleeping"
    assert "enable_sleep_mode" not in made[1].arguments


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 5])
def test_stopped_while_it_answers(config: Make, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the first validation, or in the test: at the next answer, and nothing of the engine is left."""
    made = stand_in(monkeypatch)
    whole = config("whole", engine="vllm")
    optimize.run(whole)
    answer, answered = LLM._answer, list[int]()

    def signalling(self: LLM, *arguments: Any) -> list[int]:
        answered.append(len(self.calls))
        if answered.count(number) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return answer(self, *arguments)

    stopped = config("stopped", engine="vllm")
    with monkeypatch.context() as patch:
        patch.setattr(LLM, "_answer", signalling)
        with pytest.raises(Stopped):
            optimize.run(stopped)
    assert answered.count(number) == 2, "it did not wait for the other answers"
    assert not made[1].llm_engine.engine_core.is_running
    optimize.run(stopped)
    assert_same(whole, stopped)
    assert results(whole) == results(stopped)
    assert not made[2].llm_engine.engine_core.is_running


@pytest.mark.slow
def test_an_engine_that_dies_leaves_a_run_that_goes_on(config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stand_in(monkeypatch)
    whole = config("whole", engine="vllm")
    optimize.run(whole)
    made.clear()
    LLM.dies_at = 2  # in the validation of step 2
    broken = config("broken", engine="vllm", engine_args={"gpu_memory_utilization": 0.9})
    with pytest.raises(EngineError) as error:
        optimize.run(broken)
    assert error.value.exit_code == 1
    assert "RuntimeError: EngineCore encountered an issue" in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert (Path(broken.output_dir) / "checkpoint.safetensors").exists()
    assert not made[0].llm_engine.engine_core.is_running
    LLM.dies_at = None
    optimize.run(config("broken", engine="vllm", engine_args={"gpu_memory_utilization": 0.4}))  # with other memory
    assert_same(whole, broken)


@pytest.mark.slow
def test_a_run_goes_on_with_its_own_engine_only(config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    optimize.run(config("run", engine="vllm"))
    with pytest.raises(UserError, match="engine=None \\(was vllm\\)"):
        optimize.run(config("run"))


@pytest.mark.slow
def test_an_engine_that_computes_something_else_is_spoken_of(
    config: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch)
    optimize.run(config("run", engine="vllm"))
    assert "more than a tie" not in capsys.readouterr().err
    monkeypatch.setattr(LLM, "changes", staticmethod(lambda logits: logits.roll(1)))
    optimize.run(config("other", engine="vllm"))
    assert capsys.readouterr().err.count("more than a tie in rounding") == 1


def test_a_model_that_vllm_does_not_know(config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    ModelRegistry.known = ["LlamaForCausalLM"]
    run = config("run", engine="vllm")
    with pytest.raises(ModelError, match="Qwen2ForCausalLM, which vLLM"):
        optimize.run(run)
    assert not Path(run.output_dir).exists()


def test_processes_of_torchrun(config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="an optimisation with engine=vllm was started in 2 processes"):
        run_job(config("run", engine="vllm"))


def test_vllm_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_is_there", lambda module: False)
    problems = check_line(Request("optimize", ["engine=vllm"])).problems
    assert problems == ["engine=vllm is not installed: pip install 'embedgrad[vllm]'."]


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["engine=vllm", "task=reviews", "prompt=sentiment"], "engine"),
        (["engine=vllm", "launch.processes=2"], "launch.processes"),
        (["engine=vllm", "model.quantization=nf4"], "model.quantization"),
        (["engine=vllm", "engine_args={enable_prefix_caching: true}"], "engine_args.enable_prefix_caching"),
        (["engine_args={enforce_eager: true}"], "engine_args"),
        (["engine=sglang"], "engine"),
    ],
)
def test_what_the_engine_cannot_do(words: list[str], key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_is_there", lambda module: True)
    problems = check_line(Request("optimize", copy.copy(words))).problems
    assert len(problems) == 1, problems
    assert problems[0].startswith(f"{key}:")
