"""`launch.processes=N` and torchrun: what the command starts, says once, and ends with."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from embedgrad_cli.cli import hydra_job
from embedgrad_cli.cli.main import main
from embedgrad_cli.parallel import environment

SMALL = ["experiment=debug", "train.steps=1"]
LONG = ["experiment=debug", "train.steps=100000", "train.eval_every=100000", "train.checkpoint_every=1"]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "embedgrad_cli", "optimize", *words]


def children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def rank(process: int) -> str:
    environment = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    return next((one.decode() for one in environment if one.startswith(b"RANK=")), "")


def begun(folder: Path, words: list[str]) -> subprocess.Popen[str]:
    """A long run in two processes that has a checkpoint."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(command(*words), stdout=pipe, stderr=pipe, text=True, cwd=folder)
    while not (folder / "run/checkpoint.safetensors").exists():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.2)
    return process


@pytest.mark.slow
@pytest.mark.long
def test_a_run_of_two_processes_says_everything_once(tmp_path: Path) -> None:
    words = [*SMALL, "launch.processes=2", "output_dir=run"]
    done = subprocess.run(command(*words), capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    for said in ("Written to run", "Next:", "Verdict:"):
        assert done.stdout.count(said) == 1, done.stdout
    for said in ("step 1/1", "test: seed", "training, 8 validation examples"):
        assert done.stderr.count(said) == 1, done.stderr
    assert json.loads((tmp_path / "run/results.json").read_text())["num_examples"] == 8
    with safe_open(tmp_path / "run/prompt.safetensors", framework="pt") as file:
        recorded = file.metadata()["embedgrad"]
    assert "launch" not in recorded, "how many processes there were changes no result"
    again = subprocess.run(command(*SMALL, "output_dir=run"), capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "is finished" in again.stdout, "it is the same run in one process"
    words = [*SMALL, "launch.processes=2", "output_dir=run", "seed=7"]
    other = subprocess.run(command(*words), capture_output=True, text=True, cwd=tmp_path, check=False)
    assert other.returncode == 2
    assert other.stderr.count("other settings: seed=7") == 1, other.stderr
    assert "Traceback" not in other.stderr


@pytest.mark.slow
@pytest.mark.long
def test_a_stop_is_handed_on_and_kept(tmp_path: Path) -> None:
    with begun(tmp_path, [*LONG, "launch.processes=2", "output_dir=run"]) as process:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert len(re.findall(r"stopped .*after step \d+; what was done is kept in run", errors)) == 1, errors
    assert "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.long
def test_a_process_that_is_killed_ends_the_run(tmp_path: Path) -> None:
    with begun(tmp_path, [*LONG, "launch.processes=2", "output_dir=run"]) as process:
        (second,) = [child for child in children(process.pid) if rank(child) == "RANK=1"]
        subprocess.run(["kill", "-9", str(second)], check=True)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert "process 1 of 2 was ended by SIGKILL" in errors
    assert "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.long
def test_torchrun_starts_it_too(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [*torchrun, "-m", "embedgrad_cli", "optimize"]
    wrong = subprocess.run([*words, "train.step=1"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert wrong.stderr.count("train.step: there is no such setting") == 1, wrong.stderr
    done = subprocess.run([*words, *SMALL], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("outputs/optimize/*/results.json"))) == 1, "all have the first one's folder"


WRONG = [sys.executable, "-m", "embedgrad_cli", "optimize", "train.step=1"]
SECOND = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "1"}


@pytest.mark.slow
def test_the_second_process_lets_the_first_say_what_is_wrong() -> None:
    environments = [{**os.environ, **SECOND, "RANK": number} for number in "01"]
    second = subprocess.Popen(WRONG, stderr=subprocess.PIPE, text=True, env=environments[1])
    first = subprocess.run(WRONG, capture_output=True, text=True, env=environments[0], check=False)
    assert first.returncode == 2
    assert "train.step: there is no such setting" in first.stderr
    assert second.poll() is None, "torchrun ends all others once one has ended, the first one before its word too"
    second.send_signal(signal.SIGTERM)
    assert second.communicate(timeout=60)[1] == ""


def test_what_the_first_process_has_not_seen_the_second_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "FIRST_SPEAKS_S", 0.0)
    for name, value in SECOND.items():
        monkeypatch.setenv(name, value)
    assert main(WRONG[3:]) == 2
    assert "train.step: there is no such setting" in capsys.readouterr().err


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []

    def start(*arguments: Any) -> float:
        calls.append(arguments)
        return 0.5

    monkeypatch.setattr(hydra_job, "run_processes", start)
    return calls


def test_a_divided_model_has_its_processes(started: list[tuple[Any, ...]]) -> None:
    words = ["model=tiny", "template=system", "task=word-problems", "arms=[none]", "launch.tensor_parallel=2"]
    assert main(["evaluate", *words]) == 0
    assert main(["optimize", *SMALL, "launch.tensor_parallel=3"]) == 0
    assert [number for number, _, _ in started] == [2, 3]


def test_processes_get_the_same_line(
    tmp_path: Path, started: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = 'a "run" of, mine'
    line = ["optimize", *SMALL, "launch.processes=3", f"output_dir='{folder}'"]
    assert main(line) == 0
    ((number, words, output_dir),) = started
    assert (number, output_dir) == (3, folder)
    assert words[:-1] == line[:-1]
    started.clear()
    assert main(list(words)) == 0, "the folder's name comes through"
    assert started[0][2] == folder


def test_jobs_of_a_sweep_have_folders_of_their_own(
    tmp_path: Path, started: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = ["--multirun", *SMALL, "launch.processes=2", "output_dir=sweep", "optimizer.lr=0.1,0.2"]
    assert main(["optimize", *line]) == 0
    assert [Path(folder) for _, _, folder in started] == [tmp_path / "sweep/0", tmp_path / "sweep/1"]
    for (_, words, _), rate in zip(started, ("0.1", "0.2"), strict=True):
        assert f"optimizer.lr={rate}" in words
        assert "--multirun" not in words


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "model=tiny", "template=system", "task=word-problems", "arms=[none]", "server=http://here:9"],
        ["optimize", "--multirun", *SMALL, "optimizer.lr=0.1,0.2"],
    ],
    ids=["server", "sweep"],
)
def test_only_one_optimisation_shares_its_work(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    for number, code in {"0": 2, "1": 0}.items():
        monkeypatch.setenv("RANK", number)
        assert main(words) == code
        assert ("was started in 2 processes, and only an optimisation" in capsys.readouterr().err) == (number == "0")
