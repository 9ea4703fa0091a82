"""A tracker that fails, hangs or is not there is warned of once, takes bounded time, and stops no run."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from embedgrad_cli.config.schema import TrackerConfig
from embedgrad_cli.storage.tracker_record import TrackerRecord
from embedgrad_cli.tracking.tracked import tracked

Put = Callable[[str, str], None]
# What `tracking/wandb.py` needs, and what it was given, a line of JSON each.
WORKS = """
import json
from pathlib import Path
from types import SimpleNamespace

class Run:
    id, url, name = "id-1", "https://user:password@host/run?key=1", "run"
    def __init__(self): self.summary = {}
    def define_metric(self, *a, **k): ...
    def log(self, values, step): print_to_file(step, values)
    def log_artifact(self, artifact): ...
    def finish(self, exit_code): print_to_file("end", exit_code)

def print_to_file(*words):
    with Path(FILE).open("a") as file: file.write(json.dumps(words, default=str) + "\\n")

class Artifact:
    def __init__(self, *a, **k): ...
    def add_file(self, name): print_to_file("file", name)

def init(**given): return Run()
Settings = Table = Html = lambda *a, **k: None
"""
FAILS = {
    "when it is imported": "raise OSError('no disk')",
    "as it begins": "def init(**given): raise ConnectionError('https://me:hidden@host is not there')\nSettings = dict",
    "without a word": "import os\nos._exit(9)",
}


def run_with(directory: Path, timeout: float = 20) -> float:
    """Returns: the seconds that a run of no work takes with the tracker."""
    started = time.perf_counter()
    with tracked(directory, TrackerConfig(name="wandb", timeout=timeout)):
        pass
    return time.perf_counter() - started


@pytest.mark.slow
def test_what_works_is_given_all_of_it(run_directory: Path, tmp_path: Path, stand_in: Put) -> None:
    given = tmp_path / "given"
    stand_in("wandb", WORKS.replace("FILE", repr(str(given))))
    with pytest.raises(ZeroDivisionError), tracked(run_directory, TrackerConfig(name="wandb")):
        _ = 1 / 0
    lines = [json.loads(line) for line in given.read_text().splitlines()]
    assert lines[-1] == ["end", 1]
    assert "password" not in (run_directory / "tracker.json").read_text()
    assert "key=1" not in (run_directory / "tracker.json").read_text()
    run_with(run_directory)
    lines = [json.loads(line) for line in given.read_text().splitlines()]
    assert lines[-1] == ["end", 0]
    orders = [line[0] for line in lines if isinstance(line[0], int)]
    assert orders == sorted(set(orders))
    assert {Path(line[1]).name for line in lines if line[0] == "file"} == {
        "prompt.safetensors",
        "results.json",
        "report.html",
    }
    assert TrackerRecord.read(run_directory / "tracker.json").ended


@pytest.mark.slow
@pytest.mark.parametrize("when", FAILS)
def test_a_tracker_that_fails_is_warned_of_once(
    when: str, run_directory: Path, stand_in: Put, caplog: pytest.LogCaptureFixture
) -> None:
    stand_in("wandb", FAILS[when])
    run_with(run_directory)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "tracker=wandb" in warning
    assert "hidden" not in warning


@pytest.mark.slow
@pytest.mark.parametrize("blocked", ["", "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})\n"])
def test_a_tracker_that_hangs_takes_bounded_time(
    blocked: str, run_directory: Path, stand_in: Put, caplog: pytest.LogCaptureFixture
) -> None:
    stand_in("wandb", f"{blocked}import time\ntime.sleep(600)")
    assert run_with(run_directory, timeout=3) < 30
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "3 seconds" in warning


def test_what_stands_where_the_command_is_given_is_not_imported(
    run_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_in: Put
) -> None:
    stand_in("wandb", "raise OSError")
    trap = tmp_path / "trap"
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "filelock.py").write_text(f"open({str(trap)!r}, 'w')")
    monkeypatch.chdir(tmp_path / "here")
    run_with(run_directory)
    assert not trap.exists()


@pytest.mark.slow
@pytest.mark.parametrize("code", [WORKS, "import os\nraise OSError(os.environ['WANDB_API_KEY'])"])
def test_no_key_is_written_down(
    code: str,
    run_directory: Path,
    tmp_path: Path,
    stand_in: Put,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123-key-of-mine")
    leaks = f"import os\nprint(os.environ['WANDB_API_KEY'], flush=True)\n{code}"
    stand_in("wandb", leaks.replace("FILE", repr(str(tmp_path / "given"))))
    run_with(run_directory)
    written = b"".join(file.read_bytes() for file in run_directory.rglob("*") if file.is_file())
    assert b"key-of-mine" not in written
    assert "key-of-mine" not in caplog.text
