"""A limit on how long something may compute that others have written: a regular expression, a chat template."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class TookTooLong(Exception):
    """What was limited did not end in time."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Within it this process may compute for so long. What is limited is its time, not the clock's: a busy machine
    changes nothing.

    By a signal, to which Python's regular expressions and Jinja's loops listen; one operation on a huge number does
    not. Only the main thread can be limited, and Windows has no such signal: there is no limit then.

    Raises:
        TookTooLong: within the context, wherever it is at that moment.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    running = True

    def end(*_: Any) -> None:
        if running:
            raise TookTooLong(f"it computed for more than {seconds:g} seconds")

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        try:
            yield
        finally:
            running = False
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before or signal.SIG_DFL)
