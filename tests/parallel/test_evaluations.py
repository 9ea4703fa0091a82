"""`evaluate` in several processes gives the files of one, stopped and resumed in any number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import evaluate_config, optimize_config, samples
from tests.parallel.processes import results, run
from tests.parallel.test_whole_runs import interrupted, stop

from embedgrad_cli.cli.main import main
from embedgrad_cli.commands import evaluate, optimize
from embedgrad_cli.config import engine_checks
from embedgrad_cli.config.compose import Request, check_line
from embedgrad_cli.config.launch_checks import check_shared
from embedgrad_cli.config.schema import EvaluateConfig
from embedgrad_cli.evaluation.answer_log import AnswerLog
from embedgrad_cli.parallel.join import joined
from embedgrad_cli.storage.results_record import Results

KINDS = ["choice", "drawn"]
ROUNDING = 1e-5  # of a log-likelihood: batches of other rows add up in another order
TASK = ["model=tiny", "template=system", "task=word-problems", "arms=[none]"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, choice_data: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("trained") / "run"
    optimize.run(optimize_config(folder, model_folder, choice_data, train__steps=1))
    return {"run": folder, "model": model_folder, "data": choice_data}


def config_of(kind: str, folder: Path, trained: dict[str, Path], **more: Any) -> EvaluateConfig:
    task = {"task__kind": "generation", "task__choices": None, "task__labels": None, "task__grader": "last-number"}
    drawn = {"generation__num_samples": 2, "generation__temperature": 1.0, "task__max_new_tokens": 6}
    like = optimize_config(folder, trained["model"], trained["data"], evaluation__batch_size=2)
    arms = ["none", "seed", "optimized", "text:Give the answer."]
    changes = {**(task | drawn if kind == "drawn" else {}), "arms": arms, **more}
    return evaluate_config(like, folder, str(trained["run"] / "prompt.safetensors"), **changes)


def evaluate_all(folder: str, trained: dict[str, Path]) -> list[float | None]:
    with joined(None, "cpu"):
        return [evaluate.run(config_of(kind, Path(folder, kind), trained)) for kind in KINDS]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, trained: dict[str, Path]) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    evaluate_all(str(folder), trained)
    return folder


def assert_equal_but_for_rounding(a: Path, b: Path) -> None:
    """The same bytes but for scores, of which a choice's margin and a mean may be made."""
    assert sorted(path.name for path in a.iterdir()) == sorted(path.name for path in b.iterdir())
    for one, other in zip(samples(a), samples(b), strict=True):
        scores = [line.pop("scores", None) or {} for line in (one, other)]
        assert one == other
        assert scores[0] == pytest.approx(scores[1], abs=ROUNDING)
    assert (a / "results.json").read_bytes() == (b / "results.json").read_bytes()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_give_the_evaluation_of_one(
    count: int, alone: Path, tmp_path: Path, trained: dict[str, Path]
) -> None:
    first, *others = results(count, evaluate_all, str(tmp_path), trained)
    assert first == [Results.read(alone / kind / "results.json").primary_accuracy for kind in KINDS]
    assert others == [[None, None]] * (count - 1)
    for kind in KINDS:
        assert_equal_but_for_rounding(alone / kind, tmp_path / kind)


@pytest.mark.slow
@pytest.mark.long
def test_as_many_processes_give_the_same_bytes(tmp_path: Path, trained: dict[str, Path]) -> None:
    for folder in ("first", "second"):
        results(2, evaluate_all, str(tmp_path / folder), trained)
    for kind in KINDS:
        first, second = (tmp_path / folder / kind for folder in ("first", "second"))
        assert samples(first) == samples(second)
        assert (first / "results.json").read_bytes() == (second / "results.json").read_bytes()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("number", [0, 1])
def test_stopped_and_resumed_in_another_number(
    number: int, alone: Path, tmp_path: Path, trained: dict[str, Path]
) -> None:
    config = config_of("drawn", tmp_path / "run", trained)
    ended = run(2, interrupted, config, (AnswerLog, "add", 2), number, stop)
    assert (ended[0].error, ended[0].exit_code) == ("Stopped", 130)
    assert (ended[1].error, ended[1].exit_code) == ("EndedElsewhere", 0)
    assert (tmp_path / "run/answers.partial.jsonl").exists()
    results(3, evaluate.run, config)
    assert_equal_but_for_rounding(alone / "drawn", tmp_path / "run")


@pytest.mark.slow
@pytest.mark.long
def test_predicted_by_several_and_graded_by_one(alone: Path, tmp_path: Path, trained: dict[str, Path]) -> None:
    config = config_of("drawn", tmp_path / "run", trained, mode="predict-only")
    assert results(2, evaluate.run, config) == [None, None]
    assert results(2, evaluate.run, config) == [None, None], "nothing is left to do"
    evaluate.run(replace(config, mode="regrade"))
    of_one, of_two = (Results.read(path / "results.json") for path in (alone / "drawn", tmp_path / "run"))
    assert (of_one.arms, of_one.comparisons) == (of_two.arms, of_two.comparisons)


def other_prompts(config: EvaluateConfig) -> float | None:
    """Each process has an arm of its own."""
    arms = [*config.arms, f"text:Rank {os.environ['RANK']}."]
    return evaluate.run(replace(config, arms=arms))


@pytest.mark.slow
@pytest.mark.long
def test_processes_with_other_prompts_are_refused(tmp_path: Path, trained: dict[str, Path]) -> None:
    first, second = run(2, other_prompts, config_of("choice", tmp_path / "run", trained))
    assert (first.error, first.exit_code, second.error) == ("UserError", 2, "EndedElsewhere")
    assert "process 1 of this run has another configuration" in first.message
    assert not (tmp_path / "run").exists()


ALONE = {"engine=vllm": "engine=vllm", "server=http://127.0.0.1:9": "server=URL"}


@pytest.mark.parametrize("word", ALONE)
def test_what_one_process_does_is_refused(word: str) -> None:
    problems = check_line(Request("evaluate", [*TASK, word, "launch.processes=2"])).problems
    assert any("launch.processes: " in problem and ALONE[word] in problem for problem in problems), problems
    one = check_line(Request("evaluate", [*TASK, word, "launch.processes=1"])).problems
    assert not any("launch" in problem for problem in one)


@pytest.mark.parametrize("word", ALONE)
def test_what_one_process_does_is_refused_by_all(
    word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine_checks, "engine_missing", lambda name: None)
    for name, value in {"WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "1", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert main(["evaluate", *TASK, word]) == 2
    assert f"{ALONE[word]} was started in 2 processes" in capsys.readouterr().err


def test_grading_again_is_the_work_of_one(trained: dict[str, Path], tmp_path: Path) -> None:
    config = config_of("choice", tmp_path, trained, mode="regrade", launch__tensor_parallel=2)
    assert check_shared(config) == [
        "launch.tensor_parallel: an evaluation with --regrade is the work of one process. Leave it out."
    ]


@pytest.mark.slow
@pytest.mark.long
def test_the_command_starts_its_processes(tmp_path: Path, alone: Path) -> None:
    words = ["evaluate", *TASK, "task.split.num_test=4", "launch.processes=2", "output_dir=run"]
    line = [sys.executable, "-m", "embedgrad_cli", *words]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Written to run") == 1, done.stdout
    assert json.loads((tmp_path / "run/results.json").read_text())["num_examples"] == 4
