r"""Symbolic comparison by math-verify with a time limit that holds.

math-verify's own limit is a signal, which Python only looks at between two of its instructions: `\boxed{9^{9^{9}}}` is
one multiplication of hours. So the work is done in a process of its own, which is killed when it takes too long and
started again for the next answer.
"""

from __future__ import annotations

import atexit
import json
import queue
import subprocess
import sys
import threading
from functools import lru_cache
from pathlib import Path

from embedgrad_cli.errors import EmbedgradError

TIMEOUT_SECONDS = 5.0  # for one comparison; the usual one takes a few milliseconds
STARTUP_SECONDS = 120.0  # importing SymPy, on a busy machine
WORKER = Path(__file__).with_name("algebra_worker.py")


class Algebra:
    """A worker process, started at the first question. Threads may share one.

    Args:
        timeout: seconds after which two answers count as different.
    """

    def __init__(self, timeout: float = TIMEOUT_SECONDS) -> None:
        self.timeout = timeout
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue()

    def same(self, gold: str, answer: str) -> bool:
        """Whether math-verify finds the two LaTeX answers equal; False if it takes too long.

        Raises:
            EmbedgradError: the worker cannot be started.
        """
        with self._lock:
            process = self._process or self._start()
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps([gold, answer]) + "\n")
                process.stdin.flush()
            except OSError:  # it died of the answer before
                self._stop()
                return False
            verdict = self._next_line(self.timeout)
            if verdict not in ("true", "false"):  # too long, or the process died
                self._stop()
            return verdict == "true"

    def close(self) -> None:
        """Stop the worker, if there is one."""
        with self._lock:
            self._stop()

    def _start(self) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([sys.executable, str(WORKER)], text=True, encoding="utf-8", **pipes)  # type: ignore[call-overload]
        self._process, self._lines = process, queue.Queue()
        threading.Thread(target=_read_lines, args=(process, self._lines), daemon=True).start()
        if self._next_line(STARTUP_SECONDS) != "ready":
            self._stop()
            raise EmbedgradError(
                "the grader's algebra (math-verify) cannot be started. Install it again: pip install "
                "'math-verify[antlr4_9_3]'."
            )
        return process

    def _next_line(self, timeout: float) -> str:
        try:
            return self._lines.get(timeout=timeout)
        except queue.Empty:
            return ""

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _read_lines(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line.strip())
    lines.put("")  # the process has ended


_algebra = Algebra()
atexit.register(_algebra.close)


@lru_cache(maxsize=4096)
def same_by_algebra(gold: str, answer: str) -> bool:
    """`Algebra.same` by one worker that this process shares."""
    return _algebra.same(gold, answer)
