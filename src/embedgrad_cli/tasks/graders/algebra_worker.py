"""The process in which math-verify runs: reads `[gold, answer]` as JSON lines, writes `true` or `false` for each.

A script of its own that imports nothing of embedgrad, so that it starts quickly and can be stopped at any time
(see `algebra.py`).
"""

from __future__ import annotations

import json
import logging
import signal
import sys

MEMORY_BYTES = 4 << 30  # more is an expression that grows without end


def main() -> None:
    """Say `ready`, then answer until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _limit_memory()
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it would report every answer it cannot parse
    from math_verify import parse, verify

    _say("ready")
    for line in sys.stdin:
        gold, answer = json.loads(line)
        try:
            # The parent keeps the time: math-verify's own limit is a signal, which a long multiplication ignores.
            parsed = [parse(rf"\boxed{{{one}}}", parsing_timeout=None) for one in (gold, answer)]
            same = all(parsed) and verify(*parsed, timeout_seconds=None)
        except Exception:  # an answer nobody can parse or hold in memory is wrong
            same = False
        _say(json.dumps(bool(same)))


def _limit_memory() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    except (ImportError, OSError, ValueError):  # no such limit on this system; the time limit remains
        pass


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
