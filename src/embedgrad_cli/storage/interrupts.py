"""Ctrl-C, SIGTERM, a closed terminal: a run stops at its next safe point, so that nothing that was done is lost.

with StopRequest():
    for batch in batches:
        stop_if_asked()  # raises StopAsked once a signal has come
        …

Safe points stand between batches, micro-batches, graded answers and generated tokens: there nothing is half done that
could not be done again. A signal concerns the whole process, so they need not be handed the request.
"""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Self

from embedgrad_cli.errors import EmbedgradError
from embedgrad_cli.guards.typed_settings import typed

HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)  # Windows has none
SIGNALS = tuple(number for number in (signal.SIGINT, signal.SIGTERM, HANGUP) if number is not None)
# With these submitit asks a job to put itself into the queue again; it has handlers of its own for them.
REQUEUE = tuple(number for name in ("SIGUSR1", "SIGUSR2") if (number := getattr(signal, name, None)) is not None)


class Stopped(EmbedgradError):
    """The user, or a cluster's scheduler, asked the run to stop (exit code 130)."""

    exit_code = 130

    def __init__(self, when: str, output_dir: Path) -> None:
        super().__init__(
            f"stopped {when}; what was done is kept in {output_dir}. "
            f"The same command with {typed('output_dir', output_dir)} goes on from there."
        )


class StopAsked(KeyboardInterrupt):
    """What a safe point raises. Like Ctrl-C it is no `Exception`, so that nobody takes it for a failure."""


class StopRequest:
    """Within the context, the first signal waits for the next safe point; a second one interrupts at once.

    What a job scheduler handles itself stays its own: SIGTERM, if it has a handler; and its request to put the job into
    the queue again is handed on to it at the end of the context, when what was done is kept.
    """

    _active: StopRequest | None = None
    waits = False

    def __init__(self) -> None:
        self.requested = False
        self._requeue: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # signals cannot be caught elsewhere
            ours = [number for number in SIGNALS if not _is_another_s(number) and not _passes(number)]
            taken = [*ours, *(number for number in REQUEUE if _is_another_s(number))]
            self._before = {number: signal.signal(number, self._handle) for number in taken}
            StopRequest._active = self
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        StopRequest._active = None
        if self._requeue is not None:
            self._before[self._requeue](self._requeue, None)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        _let_go_of_terminal(number)
        if number in REQUEUE:
            self._requeue = signal.Signals(number)
        elif self.requested:
            raise KeyboardInterrupt
        self.requested = True


def _is_another_s(number: signal.Signals) -> bool:
    """Whether somebody has a handler for a signal that is not Python's own."""
    handler = signal.getsignal(number)
    return callable(handler) and handler not in (signal.default_int_handler, _interrupt)


def _let_go_of_terminal(number: int) -> None:
    """Lose what is written to a terminal from now on, if it has been closed: to write to it would be an error."""
    for stream in (1, 2) if number == HANGUP else ():
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(stream).st_mode) and not os.isatty(stream):  # a character device, and no terminal
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


class Interruption:
    """Whether a signal has come within `signals_interrupt`: libraries make other errors of a KeyboardInterrupt."""

    has_come = False


def _interrupt(number: int, frame: FrameType | None) -> None:
    Interruption.has_come = True
    _let_go_of_terminal(number)
    signal.default_int_handler(number, frame)


def _passes(number: signal.Signals) -> bool:
    """Whether a closed terminal is to end nothing, as under nohup."""
    return number == HANGUP and signal.getsignal(number) == signal.SIG_IGN


def stop_if_asked() -> None:
    """A safe point. Outside of a `StopRequest` it does nothing: there a signal interrupts at once.

    Raises:
        StopAsked: a signal has come.
    """
    if is_stop_asked() and not StopRequest.waits:
        raise StopAsked


def is_stop_asked() -> bool:
    """Whether a signal has come within a `StopRequest`."""
    return StopRequest._active is not None and StopRequest._active.requested


@contextmanager
def stops_wait() -> Iterator[None]:
    """Within it no safe point stops: where processes work in step, all of them have to stop at the same one.

    `is_stop_asked` says what they tell each other.
    """
    StopRequest.waits = True
    try:
        yield
    finally:
        StopRequest.waits = False


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Within it all of them do what Ctrl-C does: a KeyboardInterrupt, on whose way half-written files are removed."""
    is_main = threading.current_thread() is threading.main_thread()
    python_s = (signal.SIG_DFL, signal.default_int_handler)
    before = {number: signal.getsignal(number) for number in SIGNALS if is_main}
    caught = [number for number, handler in before.items() if handler in python_s]
    Interruption.has_come = False
    for number in caught:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, before[number])
