"""One process per folder that is written."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from embedgrad_cli.cli.main import main
from embedgrad_cli.errors import UserError
from embedgrad_cli.storage.files import write_atomically
from embedgrad_cli.storage.run_lock import LOCK_FILE, lock_export, lock_run

OLD_RUN = Path(__file__).parent / "old_run"
# Holds a lock until someone ends it: `python -c HOLD lock_run FOLDER`.
HOLD = """
import sys, time
from pathlib import Path
from embedgrad_cli.storage import run_lock

with getattr(run_lock, sys.argv[1])(Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def held(lock: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of a folder."""
    command = [sys.executable, "-c", HOLD, lock, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def write_run(folder: Path) -> None:
    folder.mkdir()
    (folder / "config.yaml").write_text("seed: 0\n")


@pytest.mark.parametrize(
    ("lock", "words"),
    [
        ("lock_run", ["optimize"]),
        ("lock_run", ["optimize", "--multirun", "seed=1"]),
        ("lock_run", ["evaluate", f"artifact={OLD_RUN}/prompt.safetensors"]),
        ("lock_run", ["evaluate", "--predict-only", f"artifact={OLD_RUN}/prompt.safetensors"]),
        ("lock_export", ["export", f"artifact={OLD_RUN}/prompt.safetensors"]),
    ],
    ids=lambda item: item if isinstance(item, str) else " ".join(item[:2]),
)
def test_a_second_process_is_refused(
    lock: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    locked = out / "0" if "--multirun" in words else out
    with held(lock, locked) as process:
        before = sorted(tmp_path.rglob("*"))
        assert main([*words, f"output_dir={out}"]) == (1 if "--multirun" in words else 2)
        text = capsys.readouterr().err
        assert all(word in text for word in (f"output_dir={locked}", str(process.pid), socket.gethostname(), "lock_"))
        if "--multirun" not in words:  # of a sweep, Hydra keeps a file
            assert sorted(tmp_path.rglob("*")) == before


def test_grading_again_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = (OLD_RUN / "config.yaml").read_text().replace("output_dir", "arms: [seed]\noutput_dir", 1)
    write_run(tmp_path / "run")
    (tmp_path / "run/config.yaml").write_text(config)
    with held("lock_run", tmp_path / "run") as process:
        assert main(["evaluate", "--regrade", f"output_dir={tmp_path}/run"]) == 2
        assert f"process {process.pid} " in capsys.readouterr().err


def test_a_killed_process_leaves_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write_run(folder)
    with held("lock_run", folder) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert str(process.pid) in (folder / LOCK_FILE).read_text(), "its name is still there"
        started = time.monotonic()
        with lock_run(folder):
            assert str(os.getpid()) in (folder / LOCK_FILE).read_text()
        assert time.monotonic() - started < 5
    assert (folder / LOCK_FILE).read_bytes() == b""


def test_a_lock_is_given_back(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    for _ in range(2):
        with lock_run(tmp_path / "run"), lock_export(tmp_path / "run"):
            pass
    with pytest.raises(ZeroDivisionError), lock_run(tmp_path / "run"):
        raise ZeroDivisionError
    with lock_run(tmp_path / "run"), pytest.raises(UserError), lock_run(tmp_path / "run"):
        pass


def test_where_nothing_was_written_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with lock_run(tmp_path / "a/b/run"), lock_run(tmp_path / "mine"), lock_export(tmp_path / "c/out"):
        pass
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_said(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def flock(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with lock_run(tmp_path / "run"):
        assert str(os.getpid()) in (tmp_path / "run" / LOCK_FILE).read_text()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert list(tmp_path.iterdir()) == []


def test_the_lock_file_is_no_way_to_another_file(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    write_run(tmp_path / "run")
    (tmp_path / "run" / LOCK_FILE).symlink_to(tmp_path / "precious")
    with pytest.raises(UserError, match="output_dir="), lock_run(tmp_path / "run"):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_readers_do_not_trip_over_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for file in OLD_RUN.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    with held("lock_run", folder):
        assert main(["compare", str(folder)]) == 0
        assert main(["inspect", str(folder / "prompt.safetensors")]) == 0


def killed_while_it_writes(file: Path) -> None:
    """Leave what a process leaves that is killed before a file has its name."""
    pid = os.fork()
    if pid == 0:
        os.fsync = lambda _: os._exit(9)  # type: ignore[assignment]
        write_atomically(file, b"half")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


def test_the_next_holder_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_run(run)
    mine = [run / ".results.json.partial", run / ".notes.20251128", run / "x.results.json.abcdefgh.partial"]
    for file in mine:
        file.write_text("mine")
    before = {path.name for path in run.iterdir()}
    for name in ("results.json", "a.b.safetensors"):
        killed_while_it_writes(run / name)
    assert len(list(run.iterdir())) == len(before) + 2
    with held("lock_run", run):
        left = {path.name for path in run.iterdir()} - {LOCK_FILE}
        assert left == before, "the holder has removed it, and nothing else"
    killed_while_it_writes(tmp_path / "page.html")
    with lock_export(tmp_path / "other.html"):
        assert [path.name for path in tmp_path.glob(".page.html.*")] != []
    with lock_export(tmp_path / "page.html"):
        assert [path.name for path in tmp_path.glob(".page.html.*")] == [".page.html.lock"]


def test_where_there_are_no_locks_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could be another process's, which writes it just now."""
    write_run(tmp_path / "run")
    killed_while_it_writes(tmp_path / "run/results.json")

    def no_locks(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("embedgrad_cli.storage.run_lock.FileLock", no_locks)
    with lock_run(tmp_path / "run"):
        assert len(list((tmp_path / "run").glob(".results.json.*"))) == 1
