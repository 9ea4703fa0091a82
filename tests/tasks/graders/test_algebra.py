"""The process that compares answers: stopped in time, started again, and never the reason for a wrong verdict."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from embedgrad_cli.tasks.graders import Extraction, get
from embedgrad_cli.tasks.graders import algebra as module
from embedgrad_cli.tasks.graders.algebra import Algebra, Undecided

EXPLODES = "9^{9^{9^{9}}}"


@pytest.fixture
def algebra() -> Iterator[Algebra]:
    """A worker that runs, and has all the time it may need on a busy machine."""
    started = Algebra(seconds=60.0)
    assert started.same("2", "1+1")
    yield started
    started.close()


@pytest.mark.parametrize("answer", ["99999999!", EXPLODES])
def test_an_answer_that_explodes_is_given_up_in_time_and_the_next_is_graded(algebra: Algebra, answer: str) -> None:
    algebra.seconds, started = 1.0, time.perf_counter()
    with pytest.raises(Undecided):
        algebra.same("5", answer)
    assert time.perf_counter() - started < 60
    algebra.seconds = 60.0
    assert algebra.same(r"\frac{1}{2}", "0.5")


@pytest.mark.parametrize("waits", [True, False])
def test_a_worker_that_died_idle_costs_no_answer(algebra: Algebra, waits: bool) -> None:
    assert algebra._process is not None
    algebra._process.kill()
    if waits:
        algebra._process.wait()
    assert algebra.same("2", "1+1")


def test_a_busy_machine_gives_the_verdicts_of_an_idle_one(algebra: Algebra) -> None:
    """The worker gets no time to compute for longer than it may compute."""
    assert algebra._process is not None
    algebra.seconds = 1.0
    os.kill(algebra._process.pid, signal.SIGSTOP)
    wakes = threading.Timer(2.0, os.kill, [algebra._process.pid, signal.SIGCONT])
    wakes.start()
    assert algebra.same("2", "1+1")


INTERRUPTED = f"""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what it puts into the background without it
from embedgrad_cli.tasks.graders.algebra import Algebra
algebra = Algebra(seconds=60.0)
assert algebra.same("2", "1+1")
print("asks", flush=True)
try:
    algebra.same("5", "{EXPLODES}")
except KeyboardInterrupt:
    print(algebra.same("2", "1+1"), algebra.same("2", "3"))
"""


def test_an_interrupted_comparison_leaves_no_reply_for_the_next() -> None:
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "asks\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "True False\n"


def test_threads_share_a_worker(algebra: Algebra) -> None:
    answers = [str(number) for number in range(20)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda answer: algebra.same("7+0", answer), answers))
    assert found == [answer == "7" for answer in answers]


def test_what_was_not_decided_is_counted_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def same(_: Algebra, gold: str, answer: str) -> bool:
        asked.append((gold, answer))
        if len(asked) == 1:
            raise Undecided
        return True

    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(Algebra, "same", same)
    module.same_by_algebra.cache_clear()
    grades = [get("boxed").judge("18", r"\boxed{9+9}") for _ in range(3)]
    assert [grade.lenient for grade in grades] == [
        Extraction("9+9", correct=False, undecided=True),
        *[Extraction("9+9", correct=True)] * 2,
    ]
    assert len(asked) == 2, "a verdict is kept"
    module.same_by_algebra.cache_clear()


def test_no_process_is_left_behind() -> None:
    script = (
        "from embedgrad_cli.tasks.graders import algebra, get\n"
        "assert get('boxed').judge('x+1', r'\\boxed{1+x}').strict.correct\n"
        "print(algebra._algebra._process.pid)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)
