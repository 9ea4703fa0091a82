"""The first signal waits for a safe point, the second one does not; without a request, none waits."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from embedgrad_cli.storage.interrupts import (
    SIGNALS,
    StopAsked,
    StopRequest,
    is_stop_asked,
    signals_interrupt,
    stop_if_asked,
)

LOADING = """
import os, signal
from embedgrad_cli.cli.main import main
from embedgrad_cli.commands import optimize
optimize.load_model = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
raise SystemExit(main(["optimize", "experiment=debug", "output_dir=out"]))
"""
EXPORTING = """
import os, signal
from embedgrad_cli.cli.main import main
from embedgrad_cli.commands import export
def write(artifact, config, folder):
    (folder / "half").write_text("written")
    os.kill(os.getpid(), signal.SIGTERM)
export.writer_of = lambda format: write
raise SystemExit(main(["export", "artifact={artifact}", "format=embeds", "output_dir=out"]))
"""
ARTIFACT = Path(__file__).parent / "old_run/prompt.safetensors"


@pytest.fixture(autouse=True)
def without_nohup() -> Iterator[None]:
    """Under nohup, tests would inherit that a closed terminal is no reason to stop."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_second_signal_ends_at_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequest():
        stop_if_asked()
        os.kill(os.getpid(), number)
        with pytest.raises(StopAsked):
            stop_if_asked()
        with pytest.raises(KeyboardInterrupt) as caught:
            os.kill(os.getpid(), number)
        assert caught.type is KeyboardInterrupt
    stop_if_asked()
    assert signal.getsignal(number) is before


def test_a_scheduler_s_own_signals_stay_its_own() -> None:
    """As submitit has them: one ignores SIGTERM; one queues the job again upon SIGUSR2, once what was done is kept."""
    told: list[tuple[int, str]] = []
    where = "in the context"
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    try:
        for number in before:
            signal.signal(number, lambda number, frame: told.append((number, where)))
        with StopRequest():
            os.kill(os.getpid(), signal.SIGTERM)
            stop_if_asked()
            os.kill(os.getpid(), signal.SIGUSR2)
            with pytest.raises(StopAsked):
                stop_if_asked()
            where = "after it"
        assert told == [(signal.SIGTERM, "in the context"), (signal.SIGUSR2, "after it")]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("context", [StopRequest, signals_interrupt])
def test_under_nohup_a_closed_terminal_ends_nothing(context: Callable[[], AbstractContextManager[object]]) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with context():
            os.kill(os.getpid(), signal.SIGHUP)
            stop_if_asked()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
@pytest.mark.parametrize("code", [LOADING, EXPORTING.replace("{artifact}", str(ARTIFACT))], ids=["load", "export"])
def test_sigterm_leaves_nothing_where_there_is_nothing_to_save(code: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_closed_terminal_stops_a_run_that_writes_to_it_at_its_safe_point() -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        code = 1
        try:
            with StopRequest():
                os.write(1, b"begun")
                while not is_stop_asked():
                    time.sleep(0.01)
                os.write(1, b"written to nobody")  # which a display does, before the next safe point
                try:
                    stop_if_asked()
                except StopAsked:
                    code = 130
        finally:
            os._exit(code)
    assert os.read(terminal, 5) == b"begun"
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
