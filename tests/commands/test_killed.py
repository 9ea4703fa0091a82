"""A run that is killed, or has no room, in its last moments: the same command completes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import evaluate_config, optimize_config

from embedgrad_cli.commands import evaluate, optimize
from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.reports import write


class Killed(BaseException):
    pass


def killed(*_: Any) -> None:
    raise Killed


def configured(tmp_path: Path, model: Path, data: Path) -> OptimizeConfig:
    return optimize_config(tmp_path / "run", model, data, train__steps=1, report=True)


def optimizing(tmp_path: Path, model: Path, data: Path) -> None:
    optimize.run(configured(tmp_path, model, data))


def evaluating(tmp_path: Path, model: Path, data: Path) -> None:
    config = configured(tmp_path, model, data)
    evaluate.run(evaluate_config(config, tmp_path / "run", arms=["none", "seed"], report=True))


@pytest.mark.parametrize("work", [optimizing, evaluating])
def test_killed_once_there_are_results(
    work: Callable[..., None],
    model_folder: Path,
    choice_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(write, "report_of_run", killed)
        with pytest.raises(Killed):
            work(tmp_path, model_folder, choice_data)
    run = tmp_path / "run"
    results = (run / "results.json").read_bytes()
    assert not (run / "report.html").exists()
    work(tmp_path, model_folder, choice_data)
    assert (run / "report.html").exists()
    assert list(run.glob("*.partial.jsonl")) == []
    assert (run / "results.json").read_bytes() == results
    (run / "report.html").unlink()
    work(tmp_path, model_folder, choice_data)
    assert not (run / "report.html").exists(), "a finished run is left alone"
