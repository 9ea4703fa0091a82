"""A stopped evaluation goes on; predictions are graded later, and graded again, without the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import evaluate_config, make_model, optimize_config, samples
from tests.stops import stop_at_batch

from embedgrad_cli.commands import evaluate
from embedgrad_cli.config.schema import EvaluateConfig
from embedgrad_cli.errors import DataError, UserError
from embedgrad_cli.evaluation.answer_log import AnswerLog
from embedgrad_cli.storage.interrupts import Stopped

ARMS = ["none", "text:Give the answer.", "bare"]
PARTIAL = "answers.partial.jsonl"


@pytest.fixture
def make(tmp_path: Path) -> Any:
    """Evaluations of one problem whose model and data the test may change: `make("run", seed=1)`."""
    model, data = make_model(), tmp_path / "data"
    model.network.save_pretrained(tmp_path / "model")
    model.tokenizer.save_pretrained(tmp_path / "model")
    data.mkdir()
    for split, start in [("train", 0), ("validation", 100), ("test", 200)]:
        rows = [{"q": f"Tom has {start + i} apples{'!' * i}", "a": f"{i} or #### {i % 3}"} for i in range(9)]
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    problem = optimize_config(tmp_path / "unused", tmp_path / "model", data, evaluation__batch_size=2)
    task = {"kind": "generation", "choices": None, "labels": None, "grader": "last-number"}
    for key, value in {**task, "query": "{q}", "target": "{a}", "max_new_tokens": 8}.items():
        setattr(problem.task, key, value)

    def config(name: str, **changes: Any) -> EvaluateConfig:
        drawn = {"generation__num_samples": 2, "generation__temperature": 1.0}
        return evaluate_config(problem, tmp_path / name, arms=ARMS, **{**drawn, **changes})

    return config


def assert_same(a: Path, b: Path) -> None:
    assert (a / "results.json").read_bytes() == (b / "results.json").read_bytes()
    assert samples(a) == samples(b)
    assert not (b / PARTIAL).exists()


def correct(run: Path) -> dict[str, int]:
    arms = json.loads((run / "results.json").read_text())["arms"]
    return {name: arm["correct"] for name, arm in arms.items()}


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [4, 9])
def test_stopped_and_resumed_equals_uninterrupted(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    evaluate.run(make("whole"))
    added = stop_at_batch(stop_after, AnswerLog, monkeypatch)
    with pytest.raises(Stopped, match="goes on from there"):
        evaluate.run(make("parts"))
    assert len(added) == stop_after
    assert len((tmp_path / "parts" / PARTIAL).read_text().splitlines()) == sum(added)
    assert not (tmp_path / "parts/results.json").exists()
    evaluate.run(make("parts"))
    assert len(added) == 9, "nine batches in all, none of them twice"
    assert_same(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
def test_killed_within_a_write(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate.run(make("whole"))
    add, added = AnswerLog.add, []

    def dies(self: AnswerLog, batch: Any) -> None:
        add(self, batch)
        added.append(batch)
        if len(added) == 5:
            raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(AnswerLog, "add", dies)
        with pytest.raises(MemoryError):
            evaluate.run(make("killed"))
    partial = tmp_path / "killed" / PARTIAL
    partial.write_bytes(partial.read_bytes()[:-30])  # as far as the write came: a batch of which one line is torn
    evaluate.run(make("killed"))
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_other_settings_do_not_resume(make: Any, tmp_path: Path) -> None:
    evaluate.run(make("run", mode="predict-only"))
    with pytest.raises(UserError, match=r"generation\.temperature=0\.5 \(was 1\.0\)"):
        evaluate.run(make("run", generation__temperature=0.5))


@pytest.mark.slow
def test_predictions_are_graded_later_without_the_model(
    make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate.run(make("whole"))
    assert evaluate.run(make("later", mode="predict-only")) is None
    assert "embedgrad evaluate --regrade" in capsys.readouterr().out
    assert not (tmp_path / "later/results.json").exists()
    assert all("correct" not in line for line in samples(tmp_path / "later"))
    assert evaluate.run(make("later", mode="predict-only")) is None, "nothing is left to do"
    (tmp_path / "model").rename(tmp_path / "gone")
    evaluate.run(make("later", mode="regrade"))
    assert_same(tmp_path / "whole", tmp_path / "later")


def test_grading_again_with_another_grader(make: Any, tmp_path: Path) -> None:
    evaluate.run(make("run"))
    before = {
        name: arm["correct"] for name, arm in json.loads((tmp_path / "run/results.json").read_text())["arms"].items()
    }
    (tmp_path / "model").rename(tmp_path / "gone")
    evaluate.run(make("run", mode="regrade", task__grader="label", baseline="bare"))
    after = json.loads((tmp_path / "run/results.json").read_text())
    assert all(arm["correct"] == 0 for arm in after["arms"].values())
    assert after["comparison"]["baseline"] == "bare"
    assert "grader: label" in (tmp_path / "run/config.yaml").read_text()
    evaluate.run(make("run", mode="regrade"))
    assert correct(tmp_path / "run") == before


def test_what_cannot_be_graded_again_is_refused(make: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no complete answers"):
        evaluate.run(make("nothing", mode="regrade"))
    evaluate.run(make("run"))
    with pytest.raises(UserError, match=r"task\.max_new_tokens=9 \(was 8\)"):
        evaluate.run(make("run", mode="regrade", task__max_new_tokens=9))
    file = tmp_path / "data/test.jsonl"
    rows = file.read_text().splitlines()
    file.write_text("\n".join([rows[0].replace("apples", "pears"), *rows[1:-1]]))
    with pytest.raises(DataError) as caught:
        evaluate.run(make("run", mode="regrade"))
    assert "1 are not there any more (test:8) and 1 have another query or target now (test:0)" in str(caught.value)
    (tmp_path / "run/samples.jsonl").write_text('{"id": 3}\n')
    with pytest.raises(UserError, match=r"samples\.jsonl, line 1 cannot be used: .*row_hash is missing"):
        evaluate.run(make("run", mode="regrade"))


def test_what_the_arms_read_is_known_after_grading_later(make: Any, tmp_path: Path) -> None:
    evaluate.run(make("whole"))
    evaluate.run(make("later", mode="predict-only"))
    evaluate.run(make("later", mode="regrade"))
    whole, later = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "later"))
    assert list(whole["rendered"]) == ARMS
    assert whole["rendered"] == later["rendered"]
    first = samples(tmp_path / "whole")[0]
    assert {row["row"] for row in whole["rendered"].values()} == {first["id"]}
    text = whole["rendered"]["text:Give the answer."]
    ((begin, end),) = text["slots"]
    assert text["text"][begin:end] == "Give the answer."
    assert whole["rendered"]["bare"]["text"] == f"{first['query']}\n"
