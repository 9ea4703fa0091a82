"""`--dry-run` from the command line: flags, sweeps, and that nothing is left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from embedgrad_cli.cli import hydra_job, sweep
from embedgrad_cli.cli import main as cli
from embedgrad_cli.cli.dry_run_flags import take_dry_run
from embedgrad_cli.config.dry_run import DryRun
from embedgrad_cli.errors import ConfigError


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, DryRun]]:
    """Stands in for the forecast: collects what it is called with. Runs in an empty folder."""
    calls: list[tuple[Any, DryRun]] = []
    for module in (hydra_job, sweep):
        monkeypatch.setattr(module, "run_forecast", lambda config, request: calls.append((config, request)))
    monkeypatch.setattr(hydra_job, "run_job", None)
    monkeypatch.chdir(tmp_path)
    return calls


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--dry-run"], DryRun()),
        (["--dry-run=time"], DryRun(timed=True)),
        (["--memory", "24", "--dry-run"], DryRun(memory=24 * 10**9)),
        (["--memory=0.5GB", "--dry-run"], DryRun(memory=5 * 10**8)),
        (["--dry-run", "--tflops=100"], DryRun(tflops=100.0)),
    ],
)
def test_flags(words: list[str], expected: DryRun) -> None:
    assert take_dry_run("optimize", ["seed=1", *words, "device=cpu"]) == (["seed=1", "device=cpu"], expected)


def test_without_flags_nothing_is_taken() -> None:
    assert take_dry_run("evaluate", ["seed=1"]) == (["seed=1"], None)


@pytest.mark.parametrize(
    ("command", "words", "named"),
    [
        ("evaluate", ["--dry-run"], "--dry-run"),
        ("optimize", ["--memory", "24"], "--memory"),
        ("optimize", ["--dry-run=fast"], "fast"),
        ("optimize", ["--dry-run", "--memory"], "--memory"),
        ("optimize", ["--dry-run", "--memory=-3"], "-3"),
        ("optimize", ["--dry-run", "--memory=24TB"], "24TB"),
        ("optimize", ["--dry-run", "--tflops=0"], "--tflops"),
        ("optimize", ["--dry-run=time", "--tflops=5"], "--tflops"),
    ],
)
def test_wrong_flags_are_named(command: str, words: list[str], named: str) -> None:
    with pytest.raises(ConfigError) as failure:
        take_dry_run(command, words)
    assert named in str(failure.value)


def test_the_forecast_takes_the_place_of_the_run(asked: list[tuple[Any, DryRun]], tmp_path: Path) -> None:
    assert cli.main(["optimize", "--dry-run", "train.steps=3", "--memory", "8"]) == 0
    ((config, request),) = asked
    assert (config.train.steps, request) == (3, DryRun(memory=8 * 10**9))
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_is_forecast_job_by_job(
    asked: list[tuple[Any, DryRun]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["optimize", "--multirun", "--dry-run", "train.steps=3,4", "output_dir=sweep"]) == 0
    assert [config.train.steps for config, _ in asked] == [3, 4]
    assert list(tmp_path.iterdir()) == []
    assert "compare" not in capsys.readouterr().out


def test_a_wrong_setting_is_found_before_anything(asked: list[tuple[Any, DryRun]]) -> None:
    assert cli.main(["optimize", "--dry-run", "train.steps=-3"]) == 2
    assert asked == []


def test_the_paper_s_grid_is_one_command(asked: list[tuple[Any, DryRun]]) -> None:
    assert cli.main(["optimize", "--multirun", "--dry-run", "experiment=paper/math"]) == 0
    paths = [config.model.path for config, _ in asked]
    assert len(set(paths)) == 9
    assert all(path.startswith("Qwen/Qwen2.5-") for path in paths)
    assert {config.task.name for config, _ in asked} == {"math"}


def test_models_of_a_command_line_take_the_place_of_the_grid_s(asked: list[tuple[Any, DryRun]]) -> None:
    words = ["model=tiny,qwen2.5-0.5b", "experiment=paper/causal", "task.fold=0"]
    assert cli.main(["optimize", "--multirun", "--dry-run", *words]) == 0
    paths = [config.model.path for config, _ in asked]
    assert paths == ["embedded:tiny", "Qwen/Qwen2.5-0.5B"]
