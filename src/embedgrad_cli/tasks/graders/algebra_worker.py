"""The process in which math-verify runs: `[gold, answer, seconds]` in, `true` or `false` out, as JSON lines.

It writes `null` when it lacks the memory, and ends when it has computed for so many seconds. A script of its own that
imports nothing of embedgrad, so that it starts quickly and can be stopped at any time (see `algebra.py`).
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Callable
from typing import Any

EITHER = r"\lor"  # between two relations of which one holds; math-verify knows no such sign
ROUNDED, EXACT = 1e-4, 1e-25  # of a number's size: how far from a decimal, and from what is no decimal, it may be
MEMORY_BYTES = 4 << 30  # more is an expression that grows without end


def main() -> None:
    """Answer an empty line with `ready`, then pairs until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _limit_memory()
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it would report every answer it cannot parse
    from math_verify import grader, parse, verify
    from sympy import Union

    grader.sympy_numeric_eq = _without_rounding(grader.sympy_numeric_eq)

    def read(latex: str) -> list[Any]:
        parts = [parse(rf"\boxed{{{part}}}", parsing_timeout=None) for part in latex.split(EITHER)]
        return parts[0] if len(parts) == 1 else [Union(*(part[0].as_set() for part in parts))]

    def same(gold: str, answer: str) -> bool | None:
        try:
            # The parent keeps the time: math-verify's own limit is a signal, which a long multiplication ignores.
            parsed = [read(latex) for latex in (gold, answer)]
            return all(parsed) and bool(verify(*parsed, timeout_seconds=None, allow_set_relation_comp=True))
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


def _without_rounding(numeric_eq: Callable[..., bool]) -> Callable[..., bool]:
    """math-verify's comparison of numbers, which rounds to so many places, held to a number's own size.

    1/2^99 is not 1/2^98, nor 0.0000001 0.0000004; two decimals are equal if all their digits are.
    """
    from sympy import Float, Integer, N, Rational

    def near(one: Any, other: Any) -> bool:
        if isinstance(one, Float) and isinstance(other, Float):
            return Rational(str(one)) == Rational(str(other))
        symbols = sorted(one.free_symbols | other.free_symbols, key=str)
        values = {symbol: Rational(17 + 6 * number, 13) for number, symbol in enumerate(symbols)}
        tolerance = ROUNDED if one.has(Float) or other.has(Float) else EXACT
        one, other = (N(side.subs(values).doit(), 50) for side in (one, other))
        return bool(abs(one - other) <= tolerance * max(abs(one), abs(other), Integer(0)))

    def same(one: Any, other: Any, *precision: int) -> bool:
        if not numeric_eq(one, other, *precision):
            return False
        try:
            return near(one, other)
        except (AttributeError, TypeError, ValueError):  # matrices, whose elements are compared one by one
            return True

    return same


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
