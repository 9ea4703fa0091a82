"""The process in which math-verify runs: `[gold, answer, seconds]` in, `true` or `false` out, as JSON lines.

It writes `null` when it lacks the memory, and ends when it has computed for so many seconds. A script of its own that
imports nothing of embedgrad, so that it starts quickly and can be stopped at any time (see `algebra.py`).
"""

from __future__ import annotations

import json
import logging
import signal
import sys

MEMORY_BYTES = 4 << 30  # more is an expression that grows without end


def main() -> None:
    """Answer an empty line with `ready`, then pairs until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _limit_memory()
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it would report every answer it cannot parse
    from math_verify import parse, verify

    def same(gold: str, answer: str) -> bool | None:
        try:
            # The parent keeps the time: math-verify's own limit is a signal, which a long multiplication ignores.
            parsed = [parse(rf"\boxed{{{latex}}}", parsing_timeout=None) for latex in (gold, answer)]
            return all(parsed) and bool(verify(*parsed, timeout_seconds=None))
        except (MemoryError, RecursionError):
            return None
        except Exception:  # an answer nobody can parse is wrong
            return False

    for line in sys.stdin:
        if line.strip():
            gold, answer, seconds = json.loads(line)
            _limit_computing(seconds)
            verdict = same(gold, answer)
            _limit_computing(0)
            print(json.dumps(verdict), flush=True)
        else:
            print("ready", flush=True)


def _limit_computing(seconds: float) -> None:
    """Let the system end this process after so many seconds of computing; 0 takes the limit away.

    By a signal without a handler, which also ends a long multiplication.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _limit_memory() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    except (ImportError, OSError, ValueError):  # no such limit on this system; the time limit remains
        pass


if __name__ == "__main__":
    main()
