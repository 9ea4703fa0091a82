"""What a tracker is given: every point once, whatever stops in between, and in the end all that there is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import pytest
from tests.tracking.conftest import step_line, validation_line

from embedgrad_cli.config.schema import TrackerConfig
from embedgrad_cli.storage.tracker_record import TrackerRecord
from embedgrad_cli.tracking import __main__ as process
from embedgrad_cli.tracking.tracker import Outcome, Point, TrackedRun

SETTINGS = TrackerConfig(name="mlflow", project="p")


class Recording:
    """A tracker that keeps what it is given."""

    def __init__(self) -> None:
        self.runs: list[TrackedRun] = []
        self.points: list[Point] = []
        self.outcomes: list[Outcome] = []
        self.fails_after: int | None = None

    def begin(self, run: TrackedRun) -> tuple[str, str]:
        self.runs.append(run)
        return run.run_id or "id-1", "somewhere"

    def log(self, points: Sequence[Point]) -> None:
        self.points += points
        if self.fails_after is not None and len(self.points) >= self.fails_after:
            raise ConnectionError("https://me:secret@host/p?key=12 is gone")

    def end(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> Recording:
    recording = Recording()
    monkeypatch.setattr(process, "find_tracker", lambda name: recording)
    monkeypatch.setattr(process, "EVERY", 0.01)
    return recording


def follow(directory: Path, how: str = "finished", settings: TrackerConfig = SETTINGS) -> tuple[int, str]:
    """The process of a run that ends like this. Returns: the exit code, and what it says."""
    said = StringIO()
    code = process.main(directory, StringIO(json.dumps(vars(settings)) + f"\n{how}\n"), said)
    return code, said.getvalue()


def test_everything_once_and_in_order(run_directory: Path, tracker: Recording) -> None:
    assert follow(run_directory) == (0, '{"where": "somewhere"}\n')
    (run,), (outcome,) = tracker.runs, tracker.outcomes
    assert (run.name, run.group, run.run_id) == ("run", None, None)
    assert run.parameters["train.steps"].isdigit()
    assert not any(key.startswith(("tracker", "output_dir")) for key in run.parameters)
    assert [point.step for point in tracker.points] == [0, 1, 2, 2, 3, 4, 4, 5, 6, 6]
    orders = [point.order for point in tracker.points]
    assert orders == sorted(set(orders))
    first, second = tracker.points[:2]
    assert set(first.values) == {"validation/accuracy", "validation/loss"}
    assert {"train/loss", "train/grad_norm", "train/drift"} <= set(second.values)
    results = json.loads((run_directory / "results.json").read_text())
    arms, comparisons = outcome.tables
    assert {row[0]: row[1] for row in arms.rows} == {name: arm["accuracy"] for name, arm in results["arms"].items()}
    assert comparisons.rows[0][comparisons.columns.index("p")] == results["comparison"]["mcnemar_p"]
    assert {file.name for file in outcome.files} == {"prompt.safetensors", "results.json", "report.html"}
    assert TrackerRecord.read(run_directory / "tracker.json").ended


def test_a_run_that_goes_on_repeats_no_point(run_directory: Path, tracker: Recording) -> None:
    whole = (run_directory / "metrics.jsonl").read_text().splitlines(keepends=True)
    results = (run_directory / "results.json").read_bytes()
    (run_directory / "results.json").unlink()
    (run_directory / "metrics.jsonl").write_text("".join(whole[:5]))  # up to step 3, whose checkpoint is after step 2
    assert follow(run_directory, "stopped")[0] == 0
    assert tracker.outcomes == [Outcome("stopped")]
    assert not TrackerRecord.read(run_directory / "tracker.json").ended

    (run_directory / "metrics.jsonl").write_text("".join(whole[:4]))
    (run_directory / "metrics.jsonl").write_text("".join(whole))
    (run_directory / "results.json").write_bytes(results)
    assert follow(run_directory)[0] == 0
    assert [(run.run_id, run.order) for run in tracker.runs] == [(None, -1), ("id-1", 6)]
    assert [point.order for point in tracker.points] == sorted({point.order for point in tracker.points})
    assert len(tracker.points) == len(whole)
    assert [outcome.how for outcome in tracker.outcomes] == ["stopped", "finished"]


def test_what_is_finished_there_is_left_alone(run_directory: Path, tracker: Recording) -> None:
    follow(run_directory)
    assert follow(run_directory) == (0, "")
    assert len(tracker.runs) == 1
    follow(run_directory, settings=TrackerConfig(name="mlflow", project="another"))
    assert [run.run_id for run in tracker.runs] == [None, None]


def test_what_was_handed_on_in_vain_is_not_there_twice(run_directory: Path, tracker: Recording) -> None:
    """What failed may have arrived: a gap in a curve is seen, and a doubled point is not."""
    tracker.fails_after = 1
    code, said = follow(run_directory)
    assert code == 1
    assert "ConnectionError" in said
    assert "secret" not in said
    assert "12" not in said
    tracker.fails_after = None
    follow(run_directory)
    orders = [point.order for point in tracker.points]
    assert len(orders) == len(set(orders))


def test_a_line_that_is_being_written_waits(run_directory: Path, tracker: Recording) -> None:
    half = step_line(1) + validation_line(1)[:-7]
    (run_directory / "metrics.jsonl").write_text(half)
    follow(run_directory, "failed")
    assert [point.order for point in tracker.points] == [2]


def test_a_folder_that_is_no_run_is_not_shown(tmp_path: Path, tracker: Recording) -> None:
    """What the user gave was wrong, so that the run wrote nothing."""
    assert follow(tmp_path / "nothing", "failed") == (0, "")
    assert tracker.runs == []


@pytest.mark.parametrize("file", ["multirun.yaml", "study.journal"])
def test_a_run_of_a_sweep_is_in_its_group(run_directory: Path, tracker: Recording, file: str) -> None:
    (run_directory.parent / file).touch()
    follow(run_directory)
    (run,) = tracker.runs
    assert run.group == run_directory.parent.name
    assert run.name == f"{run.group}/run"
