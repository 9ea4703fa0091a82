r"""Symbolic comparison by math-verify with a time limit that holds.

math-verify's own limit is a signal, which Python only looks at between two of its instructions: `\boxed{9^{9^{9}}}` is
one multiplication of hours. So the work is done in a process of its own, which the system ends when it has computed for
too long, and which is started again for the next answer. What is limited is the time it computes, not the clock's, so
that a busy machine gives the verdicts of an idle one.

Not by `pebble.ProcessPool`: its worker begins by importing the caller's main module (seconds and 300 MB where that
imports torch, at every start), and a worker that dies idle breaks the pool; in speed the two are equal.
"""

from __future__ import annotations

import atexit
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Container
from functools import lru_cache
from pathlib import Path

from embedgrad_cli.errors import EmbedgradError
from embedgrad_cli.tasks.graders.base import COMPUTING_SECONDS, Undecided

WAITING_SECONDS = 120.0  # for a worker that gets no time to compute, or a system that does not limit it
STARTUP_SECONDS = 120.0  # importing SymPy, on a busy machine
WORKER = Path(__file__).with_name("algebra_worker.py")
VERDICTS = {"true": True, "false": False}
GIVEN_UP = "null"  # also the worker's own word, when it lacks the memory
COMPUTED_TOO_LONG = -int(getattr(signal, "SIGPROF", 0))  # how the system ends it; Windows does not


class Algebra:
    """A worker process, started at the first question. Threads may share one.

    Args:
        seconds: of computing, after which a comparison is given up.
    """

    def __init__(self, seconds: float = COMPUTING_SECONDS) -> None:
        self.seconds = seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def same(self, gold: str, answer: str) -> bool:
        """Whether math-verify finds the two LaTeX answers equal.

        Raises:
            Undecided: it takes too long, or more memory than a worker may have.
            EmbedgradError: the worker cannot be started.
        """
        question = json.dumps([gold, answer, self.seconds])
        waiting = WAITING_SECONDS if hasattr(signal, "setitimer") else self.seconds
        with self._lock:
            for _ in range(2):  # the second time for a worker that had died before it was asked
                if self._process is None:
                    self._start()
                reply = self._ask(question, waiting, VERDICTS)
                if reply in VERDICTS:
                    return VERDICTS[reply]
                if reply:
                    break
        raise Undecided

    def close(self) -> None:
        """Stop the worker, if there is one."""
        with self._lock:
            self._stop()

    def _start(self) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        command = [sys.executable, "-P", str(WORKER)]  # -P: the modules beside it are none of math-verify's
        self._process = subprocess.Popen(command, text=True, encoding="utf-8", **pipes)  # type: ignore[call-overload]
        if self._ask("", STARTUP_SECONDS, ["ready"]) != "ready":
            raise EmbedgradError(
                "the grader's algebra (math-verify) cannot be started. Install it again: pip install "
                "'math-verify[antlr4_9_3]'."
            )

    def _ask(self, question: str, seconds: float, replies: Container[str]) -> str:
        """The worker's reply: `GIVEN_UP` if it takes too long, empty if it has died.

        A worker that gives none of these `replies`, or whose reply is not waited for, is stopped.
        """
        process, reply, waited = self._process, "", threading.Event()
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None

        def give_up() -> None:
            waited.set()
            process.kill()

        timer = threading.Timer(seconds, give_up)
        timer.start()
        try:
            process.stdin.write(question + "\n")
            process.stdin.flush()
            reply = process.stdout.readline().strip()
        except OSError:  # it had died before
            pass
        finally:
            timer.cancel()
            if reply not in replies:
                self._stop()
        return reply or (GIVEN_UP if waited.is_set() or process.returncode == COMPUTED_TOO_LONG else "")

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()  # closes the pipes and waits
            self._process = None


_algebra = Algebra()
atexit.register(_algebra.close)


@lru_cache(maxsize=4096)  # of verdicts alone: what was given up is tried again
def same_by_algebra(gold: str, answer: str) -> bool:
    """`Algebra.same` by one worker that this process shares."""
    return _algebra.same(gold, answer)
