"""A search by Optuna: trials that processes share, take over, prune; the best by validation."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout
from hydra.core.override_parser.overrides_parser import OverridesParser
from tests.cli.test_sweep import SHORT, start

from embedgrad_cli.cli import hydra_job
from embedgrad_cli.cli import main as cli
from embedgrad_cli.cli import study as study_file
from embedgrad_cli.cli.job_outcome import JobOutcome
from embedgrad_cli.cli.study import JOURNAL, Claim, Study, open_study
from embedgrad_cli.errors import DataError, UserError

pytest.importorskip("optuna", reason="needs the extra optuna")

SEARCH = ["optimizer.lr=tag(log,interval(0.01,1))", "template=system,after-query", "train.steps=range(2,9,2)"]
LINE = ["optimize", "-m", "hydra/sweeper=optuna"]


def study_in(folder: Path, lines: Sequence[str] = SEARCH, n_trials: int = 4) -> Study:
    return Study(folder, OverridesParser.create().parse_overrides(list(lines)), n_trials, seed=0)


def outcome(claim: Claim, value: float | None = 0.5) -> JobOutcome:
    failure = "it failed" if value is None else None
    return JobOutcome(
        sweep_dir="sweep", name=str(claim.number), overrides=claim.overrides, value=value, failure=failure
    )


def states(folder: Path) -> list[str]:
    return [trial.state.name for trial in open_study(folder).trials]


def test_settings_are_drawn_from_what_the_command_line_says(tmp_path: Path) -> None:
    claims = study_in(tmp_path, [*SEARCH, "seed=3"], n_trials=30).claim(30)

    drawn = [dict(word.split("=", 1) for word in claim.overrides) for claim in claims]
    assert {one["seed"] for one in drawn} == {"3"}
    assert {one["template"] for one in drawn} == {"system", "after-query"}
    assert {one["train.steps"] for one in drawn} == {"2", "4", "6", "8"}
    rates = [float(one["optimizer.lr"]) for one in drawn]
    assert 0.01 <= min(rates) < 0.1 < max(rates) <= 1, "on a logarithmic scale half of them are below 0.1"
    assert [one["hydra.sweep.subdir"] for one in drawn] == [str(claim.number) for claim in claims]


def test_processes_share_the_trials(tmp_path: Path) -> None:
    first, second = study_in(tmp_path), study_in(tmp_path)

    claims = [*first.claim(1), *second.claim(1), *first.claim(1), *second.claim(3)]

    assert [claim.number for claim in claims] == [0, 1, 2, 3]
    assert len({claim.overrides[:3] for claim in claims}) == 4, "a seed that they share does not give equal draws"
    assert first.claim(1) == second.claim(1) == []


def test_what_a_process_left_is_taken_over_with_its_settings(tmp_path: Path) -> None:
    (left,) = study_in(tmp_path).claim(1)
    left.release()  # as the system does when the process is killed

    taken = study_in(tmp_path).claim(2)

    assert [claim.number for claim in taken] == [0, 1]
    assert taken[0].overrides == left.overrides
    assert taken[1].overrides != left.overrides


def test_a_trial_that_is_given_up_goes_to_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (claim,) = study_in(tmp_path).claim(1)
    given_up, other = claim.lock.release, FileLock(claim.lock.lock_file, timeout=0)

    def taken_at_once() -> None:
        given_up()
        other.acquire()

    monkeypatch.setattr(claim.lock, "release", taken_at_once)
    claim.release()
    with pytest.raises(Timeout):
        FileLock(claim.lock.lock_file, timeout=0).acquire()


def test_the_same_trials_however_often_it_is_killed(tmp_path: Path) -> None:
    drawn: dict[str, list[Any]] = {"whole": [], "parts": []}
    for name, starts in (("whole", 1), ("parts", 4)):
        study = study_in(tmp_path / name)
        for number in range(4):
            (claim,) = study.claim(1)
            drawn[name].append(claim.overrides)
            study.tell(claim, outcome(claim, number / 4))
            claim.release()
            study = study if starts == 1 else study_in(tmp_path / name)
    assert drawn["whole"] == drawn["parts"]


def test_another_search_is_refused(tmp_path: Path) -> None:
    study_in(tmp_path)
    study_in(tmp_path, [*SEARCH, "log_level=debug"], n_trials=9)  # changes no result
    with pytest.raises(UserError, match=r"seed=3.*another output_dir"):
        study_in(tmp_path, [*SEARCH, "seed=3"])


def test_nothing_to_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*LINE, "seed=3", f"output_dir={tmp_path}"]) == 2
    assert "nothing is to be searched" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["evaluate", "-m", "model=tiny", "template=system", "task=reviews", "arms=[none]"], "embedgrad optimize"),
        (["optimize", "-m", "--dry-run"], "forecast"),
    ],
)
def test_what_has_no_validation_is_not_searched(
    words: list[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([*words, "hydra/sweeper=optuna", "seed=1,2"]) == 2
    assert named in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_failures_are_listed_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(config: Any, overrides: list[str], on_validation: Any) -> float:
        if config.seed == 1:
            raise RuntimeError("seed 1 is bad luck")
        return 0.25

    monkeypatch.setattr(hydra_job, "run_job", run)
    monkeypatch.setattr(study_file.Study, "_loss", lambda *_: 0.0)
    line = [*LINE, "seed=choice(0,1)", "hydra.sweeper.n_trials=8", f"output_dir={tmp_path}"]

    assert cli.main(line) == 1
    seen = capsys.readouterr()
    assert cli.main(line) == 0, "they are not repeated"

    bad = states(tmp_path).count("FAIL")
    assert 0 < bad < 8
    assert states(tmp_path).count("COMPLETE") == 8 - bad
    assert f"{bad} of 8 runs failed" in seen.err
    assert f"{bad} failed" in seen.out
    assert re.search(r"Best in validation: \d, 25\.0 %: seed=0$", seen.out, re.M)


def test_wrong_input_ends_this_process_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without the data would else use up the study."""

    def run(config: Any, overrides: list[str], on_validation: Any) -> float:
        raise DataError("there is no such folder.")

    monkeypatch.setattr(hydra_job, "run_job", run)
    assert cli.main([*LINE, "seed=0,1", f"output_dir={tmp_path}"]) == 1
    assert states(tmp_path) == ["FAIL"]


@pytest.mark.parametrize("prune", [True, False])
def test_hopeless_trials_are_pruned_by_validation(prune: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six good trials, then bad ones: these end at their first validation after the seed's."""
    validated: list[list[int]] = []

    def run(config: Any, overrides: list[str], on_validation: Any) -> float:
        validated.append([])
        accuracy = 0.6 if len(validated) <= 6 else 0.4
        for step in (0, 5, 10):
            validated[-1].append(step)
            if on_validation:
                on_validation(step, accuracy if step else 0.5)
        return accuracy

    monkeypatch.setattr(hydra_job, "run_job", run)
    monkeypatch.setattr(study_file.Study, "_loss", lambda *_: 0.0)
    line = [*LINE, "seed=range(0,100)", "hydra.sweeper.n_trials=8", f"hydra.sweeper.prune={prune}"]

    assert cli.main([*line, f"output_dir={tmp_path}"]) == 0

    assert states(tmp_path) == ["COMPLETE"] * 6 + ["PRUNED" if prune else "COMPLETE"] * 2
    assert validated == [[0, 5, 10]] * 6 + [[0, 5] if prune else [0, 5, 10]] * 2


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_one_killed(tmp_path: Path) -> None:
    """The journal is whole; no trial is lost; the one that was killed is finished by the other process."""
    line = [*LINE, *SHORT, "optimizer.lr=tag(log,interval(0.01,1))", "hydra.sweeper.n_trials=5", "output_dir=study"]
    folder = tmp_path / "study"
    stays, dies = start(*line, cwd=tmp_path), start(*line, cwd=tmp_path)

    def of_the_dying() -> list[Path]:
        running = [file.parent for file in folder.glob("*/.lock") if file.stat().st_size]
        return [run for run in running if json.loads((run / ".lock").read_text())["process"] == dies.pid]

    while not of_the_dying():
        assert dies.poll() is None, (tmp_path / "printed.txt").read_text()
        time.sleep(0.05)
    (killed,) = of_the_dying()
    os.killpg(dies.pid, signal.SIGKILL)
    dies.wait()
    assert not (killed / "results.json").exists()
    assert stays.wait() == 0, (tmp_path / "printed.txt").read_text()

    assert all(json.loads(line) for line in (folder / JOURNAL).read_text().splitlines())
    assert len(states(folder)) == 5
    assert set(states(folder)) <= {"COMPLETE", "PRUNED"}
    assert states(folder)[int(killed.name)] in ("COMPLETE", "PRUNED")
    assert len(list(folder.glob("*/results.json"))) == states(folder).count("COMPLETE")
