"""`objective=verified`: right answers of the model's own become targets, and a stopped run goes on to the byte."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import make_model, optimize_config
from tests.stops import run_until, stop_at_batch

from embedgrad_cli.commands import optimize
from embedgrad_cli.config.dry_run import DryRun
from embedgrad_cli.config.schema import ObjectiveConfig, OptimizeConfig
from embedgrad_cli.errors import UserError
from embedgrad_cli.forecast.make import make_forecast
from embedgrad_cli.storage.interrupts import Stopped
from embedgrad_cli.storage.training_answers import AnsweredRow, TrainingAnswers
from embedgrad_cli.tasks import graders
from embedgrad_cli.tasks.graders import Extraction, Grade, LastNumber
from embedgrad_cli.terminal.forecast import print_forecast
from embedgrad_cli.training.targets.verified import Verified, round_of
from embedgrad_cli.training.trainer import Training

TARGETS, PARTIAL = "targets.jsonl", "targets.partial.jsonl"
DRAWN = ObjectiveConfig("verified", 1.0, 0.0, samples=3, temperature=1.0, keep=2, rounds=2, unsolved="gold")


class Parity(LastNumber):
    """Every other answer of a model that says nothing is right."""

    def judge(self, gold: str, output: str) -> Grade:
        both = Extraction(output, len(output) % 2 == 0)
        return Grade(both, both)


class Never(LastNumber):
    def judge(self, gold: str, output: str) -> Grade:
        return Grade(Extraction(None, False), Extraction(None, False))


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., OptimizeConfig]:
    """Runs of one problem of generated answers, which a letter ends: `make("run", objective__keep=1)`."""
    model, data = make_model(), tmp_path / "data"
    model.network.save_pretrained(tmp_path / "model")
    model.tokenizer.save_pretrained(tmp_path / "model")
    data.mkdir()
    for split, start in [("train", 0), ("validation", 100), ("test", 200)]:
        rows = [{"q": f"Tom has {start + i} apples{'!' * i}", "a": f"{i} or #### {i % 3}"} for i in range(9)]
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    grade_by(monkeypatch, Parity())
    task = {"kind": "generation", "choices": None, "labels": None, "grader": "last-number", "stop": ["a", "e"]}
    task |= {"query": "{q}", "target": "{a}", "max_new_tokens": 6}

    def config(name: str, **changes: Any) -> OptimizeConfig:
        small = {"train__steps": 4, "train__batch_size": 4, "evaluation__batch_size": 3}
        of_task = {f"task__{key}": value for key, value in task.items()}
        objective = ObjectiveConfig(**vars(DRAWN))
        every = {"objective": objective, **small, **of_task, **changes}
        return optimize_config(tmp_path / name, tmp_path / "model", data, **every)

    return config


def grade_by(monkeypatch: pytest.MonkeyPatch, grader: LastNumber) -> None:
    monkeypatch.setattr(graders, "get", lambda name, choices=None: grader)


def rows_of(run: Path) -> list[AnsweredRow]:
    return [AnsweredRow.parse(line, "here") for line in (run / TARGETS).read_text().splitlines()]


def assert_same(a: Path, b: Path) -> None:
    for name in (TARGETS, "prompt.safetensors", "checkpoint.safetensors"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    assert not (b / PARTIAL).exists()


def test_the_first_right_answers_that_differ_and_end_are_kept(make: Any, tmp_path: Path) -> None:
    optimize.run(make("run"))
    rows = rows_of(tmp_path / "run")

    assert [(row.round, row.id) for row in rows] == [(r, f"train:{i}") for r in (1, 2) for i in range(9)]
    assert {len(row.answers) for row in rows} == {3}
    for row in rows:
        usable = [one for one in row.answers if one.correct and one.ending != "limit"]
        distinct = list({tuple(one.ids): None for one in usable})
        assert [tuple(one.ids) for one in row.answers if one.kept] == distinct[:2]
    answers = [one for row in rows for one in row.answers]
    assert all(one.correct == (len(one.output) % 2 == 0) for one in answers)
    cut = [one for one in answers if one.ending == "limit"]
    assert any(one.correct for one in cut), "such answers are graded, and not kept"
    assert any(one.kept for one in answers)


def test_answers_that_are_alike_are_kept_once(make: Any, tmp_path: Path) -> None:
    optimize.run(make("run", objective__temperature=1e-4, objective__rounds=1, train__steps=1))
    rows = rows_of(tmp_path / "run")

    assert all(len({tuple(one.ids) for one in row.answers}) == 1 for row in rows)
    assert {sum(one.kept for one in row.answers) for row in rows} == {0, 1}


def test_rounds_draw_other_answers_of_another_prompt(make: Any, tmp_path: Path) -> None:
    optimize.run(make("run"))
    first, second = ([row for row in rows_of(tmp_path / "run") if row.round == number] for number in (1, 2))

    assert all(a.prompt_hash != b.prompt_hash and a.answers != b.answers for a, b in zip(first, second, strict=True))


def test_every_batch_is_made_of_kept_answers_and_of_targets_of_unsolved_rows(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches, batch = [], Verified.batch
    monkeypatch.setattr(Verified, "batch", lambda *a: batches.append((a[1], batch(*a))) or batches[-1][1])
    optimize.run(make("run", objective__rounds=1, train__steps=6))

    kept = {row.id: [tuple(one.ids) for one in row.answers if one.kept] for row in rows_of(tmp_path / "run")}
    wanted = [f"{row}#{n}" if ids else row for row, ids in kept.items() for n in range(max(len(ids), 1))]
    seen = [example for _, of_step in batches for example in of_step][: len(wanted)]
    assert [step for step, _ in batches] == list(range(6))
    assert sorted(example.id for example in seen) == sorted(wanted), "each once in an epoch"
    for example in seen:
        row, _, number = example.id.partition("#")
        if number:  # a stop string ended it, and nothing is put behind that
            assert example.target == kept[row][int(number)]


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [2, 5])
def test_a_run_stopped_while_it_samples_goes_on_to_the_byte(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    optimize.run(make("whole"))
    added = stop_at_batch(stop_after, TrainingAnswers, monkeypatch)
    with pytest.raises(Stopped):
        optimize.run(make("parts"))
    partial = tmp_path / "parts" / PARTIAL
    done = len(partial.read_text().splitlines())
    assert 0 < done < 9
    partial.write_bytes(partial.read_bytes() + b'{"round": 1, "id": "tr')  # and one was killed as it wrote
    optimize.run(make("parts"))
    assert sum(added) == 18, "no row is answered twice"
    assert_same(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_a_run_stopped_between_steps_goes_on_to_the_byte(make: Any, tmp_path: Path, stop_at: int) -> None:
    """In the first round, between the rounds, and in the second, where the answers of the first are not needed."""
    optimize.run(make("whole"))
    run_until(stop_at, make("parts"))
    optimize.run(make("parts"))
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_answers_that_are_gone_are_named(make: Any, tmp_path: Path) -> None:
    run_until(1, make("run"))
    (tmp_path / "run" / TARGETS).unlink()
    with pytest.raises(UserError, match=r"targets\.jsonl lacks the answers of round 1"):
        optimize.run(make("run"))


@pytest.mark.slow
def test_without_a_right_answer_it_trains_as_gold_does(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grade_by(monkeypatch, Never())
    optimize.run(make("verified", objective__rounds=1))
    optimize.run(make("gold", objective=ObjectiveConfig("gold", 1.0, 0.0)))

    losses = [
        [json.loads(line).get("loss") for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("verified", "gold")
    ]
    assert losses[0] == losses[1]


def test_no_solved_row_is_a_message_and_the_answers_are_kept(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grade_by(monkeypatch, Never())
    with pytest.raises(UserError) as caught:
        optimize.run(make("run", objective__unsolved="skip"))

    message = str(caught.value)
    assert "\n" not in message
    for word in ("no row was solved in round 1", "none of 27 answers", "objective.samples=12", "objective.temperature"):
        assert word in message
    assert "objective.teacher=FILE" in message
    assert "objective.unsolved=gold" in message
    assert len(rows_of(tmp_path / "run")) == 9
    assert not (tmp_path / "run" / PARTIAL).exists()


@pytest.mark.slow
def test_a_teacher_answers_with_its_own_prompt(make: Any, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher.txt"
    teacher.write_text("Tom buys 12 more.\n")
    optimize.run(make("text", objective__teacher="Tom buys 12 more."))
    optimize.run(make("file", objective__teacher=str(teacher)))
    optimize.run(make("own"))

    text, file, own = (rows_of(tmp_path / name) for name in ("text", "file", "own"))
    assert text == file
    assert {row.prompt_hash for row in text}.isdisjoint(row.prompt_hash for row in own)
    assert len({row.prompt_hash for row in text}) == 9, "it stays as it is from round to round"
    assert [row.answers for row in text[:9]] != [row.answers for row in text[9:]]


def test_a_teacher_that_changed_is_refused(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, step = tmp_path / "teacher.txt", Training._step
    teacher.write_text("Tom buys 12 more.")

    def interrupted(self: Training, *args: Any) -> None:
        step(self, *args)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_step", interrupted)
        with pytest.raises(Stopped):
            optimize.run(make("run", objective__teacher=str(teacher)))
    teacher.write_text("Tom buys 13 more.")
    with pytest.raises(UserError, match=r"objective\.teacher: it is not what it was"):
        optimize.run(make("run", objective__teacher=str(teacher)))


@pytest.mark.parametrize(("steps", "rounds"), [(10, 1), (10, 3), (7, 7), (50, 4)])
def test_the_steps_are_cut_into_equal_rounds(make: Any, steps: int, rounds: int) -> None:
    config = make("run", train__steps=steps, objective__rounds=rounds)
    of_step = [round_of(step, config) for step in range(steps)]

    numbers = [number for number, _ in of_step]
    sizes = [numbers.count(number) for number in range(rounds)]
    assert numbers == sorted(numbers)
    assert max(sizes) - min(sizes) <= 1
    assert all(first == numbers.index(number) for number, first in of_step)


def test_a_forecast_says_how_many_answers_it_leaves_out(make: Any, capsys: pytest.CaptureFixture[str]) -> None:
    forecast = make_forecast(make("run"), DryRun())
    print_forecast(forecast)
    assert forecast.training_answers == 9 * 3 * 2
    assert "Not counted: the 54 answers" in capsys.readouterr().out
    print_forecast(make_forecast(make("run", objective=ObjectiveConfig("gold", 1.0, 0.0)), DryRun()))
    assert "Not counted" not in capsys.readouterr().out
