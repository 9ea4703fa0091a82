"""Limits on what others have written and this process computes: regular expressions, chat templates."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STATM = Path("/proc/self/statm")  # pages
AGAIN = 0.1  # seconds: an exception that is raised while an object is destroyed gets lost


class TookTooLong(BaseException):
    """What was limited did not end in time. No `Exception`, so that no library takes it for a failure of its own."""


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
    running, over = True, TookTooLong(f"it computed for more than {seconds:g} seconds")

    def end(*_: Any) -> None:
        if running:
            raise over

    before = signal.signal(signal.SIGVTALRM, end)
    around = signal.setitimer(signal.ITIMER_VIRTUAL, seconds, AGAIN)
    try:
        try:
            yield
        finally:
            running = False
    except Exception:
        if over.__traceback__ is not None:  # it was raised, and a library made something else of it
            raise over from None
        raise
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, *around)  # what is left of a limit around this one
        signal.signal(signal.SIGVTALRM, before or signal.SIG_DFL)


@contextmanager
def with_memory(more: int) -> Iterator[None]:
    """Within it this process may take so many more bytes of address space. Only Linux says how many it has.

    Raises:
        MemoryError: within the context, by what asks for more.
    """
    try:
        import resource

        with STATM.open("rb", buffering=0) as statm:  # unbuffered: this is read for every row
            pages = int(statm.read().split()[0])
    except (ImportError, OSError):
        yield
        return
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    limits = [limit for limit in (before, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([pages * resource.getpagesize() + more, *limits]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))
