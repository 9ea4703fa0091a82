"""What others have written computes for a limited time, and nothing is left of the limit."""

from __future__ import annotations

import re
import signal
import time
from contextlib import suppress

import pytest

from embedgrad_cli.guards.limits import TookTooLong, at_most

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers of computing time")


def compute(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_a_regular_expression_ends() -> None:
    with pytest.raises(TookTooLong), at_most(0.2):
        re.compile(r"(a+)+$").search("a" * 60 + "b")


def test_what_ends_in_time_is_never_interrupted() -> None:
    before = signal.getsignal(signal.SIGVTALRM)
    for _ in range(3):
        with at_most(0.2):
            compute(0.05)
    compute(0.4)
    assert signal.getsignal(signal.SIGVTALRM) == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)


def test_a_limit_within_another_leaves_it() -> None:
    def both() -> None:
        with at_most(0.5):
            with at_most(5):
                compute(0.1)
            compute(2)

    with pytest.raises(TookTooLong, match=r"0\.5 seconds"):
        both()


def test_what_becomes_of_an_interruption_is_the_interruption() -> None:
    def library() -> None:
        try:
            compute(5)
        finally:
            raise KeyError("interrupted in the middle")

    with pytest.raises(TookTooLong), at_most(0.1):
        library()


def test_an_interruption_that_gets_lost_comes_again() -> None:
    def library() -> None:
        with suppress(BaseException):
            compute(5)
        compute(5)

    with pytest.raises(TookTooLong), at_most(0.1):
        library()


def test_waiting_is_not_computing() -> None:
    with at_most(0.1):
        time.sleep(0.3)
