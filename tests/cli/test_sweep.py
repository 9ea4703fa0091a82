"""Sweeps: what fails does not lose the others, what is killed is finished by the same command, whoever launches it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedgrad_cli.cli import hydra_job
from embedgrad_cli.cli import main as cli
from embedgrad_cli.errors import DataError

MAIN = [sys.executable, "-m", "embedgrad_cli.cli.main"]
SHORT = ["experiment=debug", "train.steps=6", "train.eval_every=3", "log_level=info"]
PLUGINS = "{'joblib', 'optuna', 'sqlalchemy', 'submitit'}"


def failing(wrong: dict[int, Exception], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Stand in for the runs: those of these seeds fail. Returns: the seeds that were run."""
    seeds: list[int] = []

    def run(config: Any, overrides: list[str], on_validation: Any) -> float:
        seeds.append(config.seed)
        if config.seed in wrong:
            raise wrong[config.seed]
        return 0.5

    monkeypatch.setattr(hydra_job, "run_job", run)
    return seeds


def start(*words: str, cwd: Path) -> subprocess.Popen[str]:
    """A command in a process group of its own."""
    with (cwd / "printed.txt").open("a") as printed:
        return subprocess.Popen(
            [*MAIN, *words], cwd=cwd, stdout=printed, stderr=printed, text=True, start_new_session=True
        )


def run(*words: str, cwd: Path) -> None:
    process = start(*words, cwd=cwd)
    assert process.wait() == 0, (cwd / "printed.txt").read_text()


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[str], cwd: Path) -> None:
    while not happened():
        assert process.poll() is None, (cwd / "printed.txt").read_text()
        time.sleep(0.05)


def steps_of(run: Path) -> int:
    file = run / "metrics.jsonl"
    return file.read_text().count('"loss"') if file.exists() else 0


def artifacts(sweep_dir: Path) -> dict[str, bytes]:
    return {file.parent.name: file.read_bytes() for file in sweep_dir.glob("*/prompt.safetensors")}


def table(sweep_dir: Path) -> list[dict[str, Any]]:
    """The lines of `compare`, without where the runs are."""
    line = [*MAIN, "compare", str(sweep_dir), "--format", "json"]
    printed = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    return [{key: value for key, value in row.items() if key not in ("run", "runs")} for row in json.loads(printed)]


def test_what_fails_does_not_lose_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = failing({2: DataError("row 3 is odd.")}, monkeypatch)

    assert cli.main(["optimize", "-m", "seed=1,2,3", "train.steps=7", f"output_dir={tmp_path}"]) == 1

    assert seeds == [1, 2, 3]
    text = capsys.readouterr().err
    assert text.startswith("embedgrad: 1 of 3 runs failed.")
    assert text.splitlines()[1:] == ["  - 1 (seed=2): row 3 is odd."], "only what is the run's own"


def test_equal_failures_are_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing({1: DataError("row 3 is odd."), 3: DataError("row 3 is odd.")}, monkeypatch)

    assert cli.main(["optimize", "-m", "seed=1,2,3", f"output_dir={tmp_path}"]) == 1

    assert capsys.readouterr().err.splitlines()[1:] == ["  - 0 (seed=1), 2 (seed=3): row 3 is odd."]


def test_what_is_missing_of_a_sweep_is_run_by_what_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    failing({2: DataError("row 3 is odd.")}, monkeypatch)
    assert cli.main(["optimize", "-m", "seed=1,2", 'output_dir="my sweep, ä"']) == 1
    (said,) = re.findall(r"the same command with (.*) runs only", capsys.readouterr().err)
    seeds = failing({}, monkeypatch)
    assert cli.main(["optimize", "-m", "seed=1,2", *shlex.split(said)]) == 0
    assert seeds == [1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["my sweep, ä"]


def test_a_bug_loses_no_run_and_is_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = failing({1: ZeroDivisionError("by nought")}, monkeypatch)

    assert cli.main(["optimize", "-m", "seed=1,2", f"output_dir={tmp_path}"]) == 1

    assert seeds == [1, 2]
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert text.splitlines()[-1] == "  - 0 (seed=1): ZeroDivisionError: by nought"


@pytest.mark.parametrize(
    ("choice", "module", "extra"),
    [
        ("hydra/launcher=joblib", "hydra_plugins.hydra_joblib_launcher", "joblib"),
        ("hydra/launcher=submitit_local", "hydra_plugins.hydra_submitit_launcher", "slurm"),
        ("hydra/launcher=submitit_slurm", "hydra_plugins.hydra_submitit_launcher", "slurm"),
        ("hydra/sweeper=optuna", "optuna", "optuna"),
    ],
)
def test_what_is_not_installed_is_one_sentence(choice: str, module: str, extra: str, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.modules[{module!r}] = None; from embedgrad_cli.cli.main import main;"
        "raise SystemExit(main(sys.argv[1:]))"
    )
    line = [sys.executable, "-c", code, "optimize", "-m", "optimizer.lr=0.1,0.2", choice]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"embedgrad: {choice} is not installed: pip install 'embedgrad[{extra}]'.\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["optimize", "--help"], ["optimize", "-m", "--dry-run", "optimizer.lr=0.1,0.2"]])
def test_plugins_are_not_imported_where_they_are_not_used(words: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from embedgrad_cli.cli.main import main; assert main(sys.argv[1:]) == 0;"
        f"assert not {PLUGINS} & set(sys.modules)"
    )
    line = [sys.executable, "-c", code, *words]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_range_without_a_search_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["optimize", "-m", "optimizer.lr=interval(0.1,0.2)", f"output_dir={tmp_path}"]) == 2
    assert "hydra/sweeper=optuna" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.long
def test_joblib_killed_twice_is_finished_by_the_same_command(tmp_path: Path) -> None:
    """Once with its workers, once without: those end by themselves. The runs are those of one process."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra joblib")
    grid = ["optimize", "-m", *SHORT, "optimizer.lr=0.1,0.3", "seed=1,2"]
    run(*grid, "output_dir=whole", cwd=tmp_path)
    line, killed = [*grid, "output_dir=killed", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], tmp_path / "killed"

    process = start(*line, cwd=tmp_path)
    wait_for(lambda: steps_of(killed / "0") > 1, process, tmp_path)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process = start(*line, cwd=tmp_path)
    wait_for(lambda: (killed / "0/results.json").exists(), process, tmp_path)
    process.kill()
    process.wait()
    finished = {file: file.stat().st_mtime_ns for file in killed.glob("*/results.json")}
    time.sleep(5)  # a worker looks every second whether its sweep is there, and ends after the step that it is in
    run(*line, cwd=tmp_path)

    assert all(file.stat().st_mtime_ns == before for file, before in finished.items())
    assert artifacts(killed) == artifacts(tmp_path / "whole")
    assert table(killed) == table(tmp_path / "whole")
    assert len(artifacts(killed)) == 4


@pytest.mark.slow
@pytest.mark.long
def test_a_job_that_is_requeued_goes_on(tmp_path: Path) -> None:
    """By the signal with which Slurm's pre-emption, or the end of the time, reaches a job of submitit."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra slurm")
    line = ["optimize", "-m", *SHORT, "train.checkpoint_every=100"]
    run(*line, "output_dir=whole", cwd=tmp_path)

    job = tmp_path / "requeued/0"
    process = start(*line, "output_dir=requeued", "hydra/launcher=submitit_local", cwd=tmp_path)
    wait_for(lambda: steps_of(job) >= 1, process, tmp_path)
    os.kill(json.loads((job / ".lock").read_text())["process"], signal.SIGUSR2)
    assert process.wait() == 0, (tmp_path / "printed.txt").read_text()

    begun = [line for line in (job / "embedgrad.log").read_text().splitlines() if "from step" in line]
    assert len(begun) == 2
    assert "from step 0" not in begun[1], "what was done is kept, whenever the last checkpoint was due"
    assert artifacts(tmp_path / "requeued") == artifacts(tmp_path / "whole")
    assert table(tmp_path / "requeued") == table(tmp_path / "whole")
