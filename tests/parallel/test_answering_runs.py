"""Promise 6 where training rows are answered: by several processes, as by one."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.commands.test_stop import assert_same, generation, steps_done
from tests.parallel.processes import results, run
from tests.parallel.test_whole_runs import Place, assert_equal_but_for_rounding, interrupted, stop

from embedgrad_cli.commands import optimize
from embedgrad_cli.config.schema import ObjectiveConfig, OptimizeConfig
from embedgrad_cli.parallel.join import joined
from embedgrad_cli.storage.training_answers import AnsweredRow, TrainingAnswers
from embedgrad_cli.tasks import graders
from embedgrad_cli.tasks.graders import Extraction, Grade, LastNumber
from embedgrad_cli.training.targets.distilled import Distilled
from embedgrad_cli.training.targets.rollouts import Rollouts
from embedgrad_cli.training.targets.verified import Verified

pytestmark = [pytest.mark.slow, pytest.mark.long]
HERE = __name__
OBJECTIVES: dict[str, dict[str, Any]] = {
    "verified": {"samples": 3, "temperature": 1.0, "keep": 2, "rounds": 2, "unsolved": "gold"},
    "reward": {"samples": 3, "temperature": 1.0, "reward": f"{HERE}:length"},
    "distill": {"teacher": "Answer with a long word.", "samples": 2, "temperature": 1.0},
    "gold": {"mask": 1e-3},
}

PLACES: dict[str, Place] = {
    "verified": (Verified, "_graded", 2),
    "reward": (Rollouts, "_rewarded", 2),
    "distill": (Distilled, "_replies", 1),
}


class Parity(LastNumber):
    """Every other answer of a model that says nothing is right."""

    def judge(self, gold: str, output: str) -> Grade:
        both = Extraction(output, len(output) % 2 == 0)
        return Grade(both, both)


def length(query: str, answer: str, target: str) -> float:
    return len(answer)


def length_or_fault(query: str, answer: str, target: str) -> float:
    """A reward that one process cannot give."""
    if os.environ["RANK"] == "1" and Path(os.environ.get("FAULT", "no fault")).exists():
        raise KeyError("a word")
    return len(answer)


def config_of(name: str, folder: Path, model: Path, data: Path, **objective: Any) -> OptimizeConfig:
    settings = ObjectiveConfig(name, 1.0, 0.0, **{**OBJECTIVES[name], **objective})
    return generation(folder, model, data, objective=settings, train__checkpoint_every=1)


def optimised(config: OptimizeConfig) -> float:
    """In a process of its own, so that what is patched here stays there."""
    graders.get = lambda name, choices=None: Parity()
    return optimize.run(config)


def stopped(config: OptimizeConfig, number: int) -> float:
    graders.get = lambda name, choices=None: Parity()
    return interrupted(config, PLACES[config.objective.name or ""], number, stop)


def faulty(config: OptimizeConfig, fault: str) -> float:
    """The second process cannot give a reward from the second step on."""
    os.environ["FAULT"] = fault
    graders.get = lambda name, choices=None: Parity()
    return interrupted(config, PLACES["reward"], 1, Path(fault).touch)


def run_all(folder: str, model: str, data: str) -> None:
    with joined(None, "cpu"):
        for name in OBJECTIVES:
            optimised(config_of(name, Path(folder, name), Path(model), Path(data)))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, choice_data: Path) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    results(1, run_all, str(folder), str(model_folder), str(choice_data))
    return folder


@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_give_the_run_of_one(
    count: int, alone: Path, tmp_path: Path, model_folder: Path, choice_data: Path
) -> None:
    results(count, run_all, str(tmp_path), str(model_folder), str(choice_data))
    for name in OBJECTIVES:
        assert_equal_but_for_rounding(alone / name, tmp_path / name)
    of_one, of_all = answers_of(alone / "verified"), answers_of(tmp_path / "verified")
    assert of_one == of_all
    assert any(answer.kept for row in of_one for answer in row.answers)


def answers_of(run: Path) -> list[AnsweredRow]:
    """Without the hash of what the model read: that of vectors that differ by rounding is another."""
    rows = TrainingAnswers(run / "targets.jsonl", run / "none").finished()
    return [replace(row, prompt_hash="") for row in rows]


@pytest.mark.parametrize("name", ["verified", "reward"])
def test_as_many_processes_give_the_same_bytes(
    name: str, tmp_path: Path, model_folder: Path, choice_data: Path
) -> None:
    for folder in ("first", "second"):
        results(2, optimised, config_of(name, tmp_path / folder, model_folder, choice_data))
    assert_same(tmp_path / "first", tmp_path / "second")


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("name", PLACES)
def test_stopped_while_it_answers_and_resumed_in_another_number(
    name: str, number: int, alone: Path, tmp_path: Path, model_folder: Path, choice_data: Path
) -> None:
    config = config_of(name, tmp_path / "run", model_folder, choice_data)
    ended = run(2, stopped, config, number)
    assert (ended[0].error, ended[0].exit_code) == ("Stopped", 130)
    assert (ended[1].error, ended[1].exit_code) == ("EndedElsewhere", 0)
    results(3, optimised, config)
    assert_equal_but_for_rounding(alone / name, tmp_path / "run")


def test_a_reward_that_one_cannot_give_keeps_the_steps_before(
    alone: Path, tmp_path: Path, model_folder: Path, choice_data: Path
) -> None:
    fault = tmp_path / "fault"
    settings = {"reward": f"{HERE}:length_or_fault"}
    config = config_of("reward", tmp_path / "run", model_folder, choice_data, **settings)
    first, second = run(2, faulty, config, str(fault))
    assert (second.error, second.exit_code) == ("UserError", 2)
    assert "raised KeyError: 'a word'" in second.message
    assert (first.error, first.exit_code) == ("EndedElsewhere", 0)
    assert steps_done(tmp_path / "run") == 1
    fault.unlink()
    results(2, optimised, config)
    assert_equal_but_for_rounding(alone / "reward", tmp_path / "run")
