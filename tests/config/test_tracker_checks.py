"""A tracker that is not there, or an address that holds a secret, is said before any work."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from embedgrad_cli.cli.main import main
from embedgrad_cli.config import tracker_checks
from embedgrad_cli.config.plugins import tracker_missing
from embedgrad_cli.config.schema import TrackerConfig
from embedgrad_cli.config.tracker_checks import check_tracker


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_checks, "tracker_missing", lambda tracker: None)


def test_what_is_not_installed_ends_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert main(["optimize", "tracker=mlflow", f"output_dir={tmp_path / 'run'}"]) == 2
    said = capsys.readouterr().err
    assert "pip install 'embedgrad[mlflow]'" in said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_a_folder_that_a_tracker_left_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_tracker").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert tracker_missing("a_tracker") is not None


@pytest.mark.parametrize(
    ("name", "place", "is_right"),
    [
        ("mlflow", None, True),
        ("mlflow", "outputs/mlflow", True),
        ("mlflow", "sqlite:////home/me/mlflow.db", True),
        ("mlflow", "https://host:5000", True),
        ("mlflow", "https://me:hidden@host", False),
        ("mlflow", "https://host?token=hidden", False),
        ("wandb", "https://host", False),
        ("tensorboard", "C:/runs", True),
    ],
)
def test_places(name: str, place: str | None, is_right: bool, installed: None) -> None:
    problems = check_tracker(TrackerConfig(name=name, place=place))  # type: ignore[arg-type]
    assert (problems == []) == is_right
    assert all(problem.startswith("tracker.place") and "hidden" not in problem for problem in problems)
