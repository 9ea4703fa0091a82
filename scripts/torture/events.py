"""What a process does to the files below a folder, one by one, and a fault at the n-th.

Events are Python's audit events (`open` for writing, rename, remove, mkdir, …), each `fsync`, and each `write` to a
file that was opened by Python. What a library written in Rust or C++ writes is none.
"""

from __future__ import annotations

import builtins
import fcntl
import io
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
ON_PATHS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink", "os.chmod")


@dataclass(frozen=True)
class Event:
    """One thing that is about to be done to a file. `half` does half of it, where that can be: a write."""

    number: int
    kind: str
    path: str
    half: Callable[[], None] = lambda: None


Act = Callable[[Event], None]  # called before the event; what it raises is what the caller of the file function sees


def watch(root: Path, act: Act) -> None:
    """Call `act` before each event below `root`, in this process and until it ends: audit hooks cannot be removed."""
    watched, real = os.fspath(root.resolve()), (io.open, os.fsync, fcntl.flock)
    number, is_acting = 0, False  # what `act` itself does is no event

    def happens(kind: str, path: Any, half: Callable[[], None] = lambda: None) -> None:
        nonlocal number, is_acting
        if is_acting or not _is_below(watched, path):
            return
        number += 1
        is_acting = True
        try:
            act(Event(number, kind, str(path), half))
        finally:
            is_acting = False

    def audit(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITES and not isinstance(path, int):  # which is open already
                happens("open", path)
        elif name in ON_PATHS:
            happens(name.removeprefix("os."), arguments[0])

    def opening(file: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
        opened = real[0](file, mode, *more, **named)
        path = opened.name if isinstance(opened.name, str) else _path_of(opened.fileno())
        return _Writing(opened, path, happens) if set(mode) & set("wax+") and _is_below(watched, path) else opened

    def syncing(descriptor: int) -> None:
        happens("fsync", _path_of(descriptor))
        real[1](descriptor)

    def locking(descriptor: Any, operation: int) -> None:
        happens("flock", _path_of(descriptor if isinstance(descriptor, int) else descriptor.fileno()))
        real[2](descriptor, operation)

    builtins.open = io.open = opening  # type: ignore[assignment]
    os.fsync, fcntl.flock = syncing, locking  # type: ignore[assignment]
    sys.addaudithook(audit)


class _Writing:
    """A file whose every `write` is an event."""

    def __init__(self, file: Any, path: str, happens: Callable[..., None]) -> None:
        self._file, self._path, self._happens = file, path, happens

    def write(self, content: Any) -> int:
        def half() -> None:
            self._file.write(content[: len(content) // 2])
            self._file.flush()

        self._happens("write", self._path, half)
        return int(self._file.write(content))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Writing:
        self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._file.__exit__(*error)


def kill_at(number: int) -> Act:
    """SIGKILL at an event, in the middle of it where it is a write."""

    def act(event: Event) -> None:
        if event.number == number:
            event.half()
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def fail_from(number: int, error: int, times: int | None = None) -> Act:
    """An error of the operating system at an event and at those after it (`times`: at so many), as of a full disk.

    What makes room is let through: nothing is in the way of a file that is removed.
    """

    def act(event: Event) -> None:
        if event.number < number or (times is not None and event.number >= number + times):
            return
        if event.kind in ("open", "write", "fsync", "mkdir", "rename", "link", "symlink"):
            event.half()
            raise OSError(error, os.strerror(error), event.path)

    return act


def _is_below(root: str, path: Any) -> bool:
    if isinstance(path, int):
        path = _path_of(path)
    place = os.path.realpath(os.path.dirname(os.path.abspath(os.fsdecode(path))))  # noqa: PTH100, PTH120 - in a hook
    return place == root or place.startswith(root + os.sep)


def _path_of(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - in a hook
    except OSError:
        return ""
