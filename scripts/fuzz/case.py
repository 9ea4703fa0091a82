"""One try: files in a folder of its own, a command on them, and what must hold whatever the files are."""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import io
import os
import re
import resource
import signal
import time
import traceback
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from embedgrad_cli.cli.main import main
from embedgrad_cli.errors import EmbedgradError
from embedgrad_cli.guards.visible_text import visible

SECONDS = 30.0  # of computing, for one case; the limits of templates and patterns are below it
HUNG = 300  # seconds of the clock, after which the whole process ends and says where it was
BYTES = 3 << 30  # how much larger the process may become
LONGEST = 20_000  # characters of what is said
JOBS = ("run_once", "run_sweep", "run_hydra")  # what would run a command line that is right


@dataclass(frozen=True)
class Case:
    """What is tried.

    Args:
        files: written into a fresh folder, by their names there.
        words: the command line, with `{folder}` for that folder.
        call: instead of a command line, a function of the folder.
        names: one of these stands in every message: the file or the key that is wrong.
        runs: False: the command line is only checked, and no job runs.
        broken: the file that is shown; empty: all of them.
    """

    files: Mapping[str, bytes]
    words: tuple[str, ...] = ()
    call: Callable[[Path], object] | None = field(default=None, repr=False)
    names: tuple[str, ...] = ("",)
    runs: bool = True
    broken: str = ""

    def __repr__(self) -> str:
        files = {name: content[:3000] for name, content in self.files.items() if self.broken in ("", name)}
        return f"{' '.join(self.words) or 'call'} with {files!r}"


@dataclass(frozen=True)
class Outcome:
    """What came of a case. `fault` is None if all holds."""

    code: int
    said: str
    seconds: float
    fault: str | None


def try_case(case: Case, folder: Path) -> Outcome:
    """Run a case in an empty folder, which it may fill."""
    for name, content in case.files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    before, memory, started = _digests(folder, case.files), _memory(), time.process_time()
    code, said, fault = 0, "", None
    with contextlib.chdir(folder), _watched():
        try:
            code, said = _run(case, folder)
        except BaseException as error:  # what a user would see as a traceback
            last = traceback.extract_tb(error.__traceback__)[-1]
            fault = f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"
    seconds = time.process_time() - started
    fault = fault or _what_is_wrong(case, code, said)
    if seconds > SECONDS:
        fault = fault or f"it computed for {seconds:.1f} seconds"
    if _memory() - memory > BYTES:
        fault = fault or f"it took {(_memory() - memory) >> 20} MiB"
    if case.runs and code == 2 and _digests(folder, case.files) != before:
        fault = fault or "a file was changed"
    return Outcome(code, said, seconds, fault)


def _run(case: Case, folder: Path) -> tuple[int, str]:
    if case.call is not None:
        try:
            case.call(folder)
        except EmbedgradError as error:
            return error.exit_code, visible(f"embedgrad: {error}")
        return 0, ""
    out, err = io.StringIO(), io.StringIO()
    words = [word.replace("{folder}", str(folder)) for word in case.words]
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        for name in () if case.runs else JOBS:
            stack.enter_context(mock.patch(f"embedgrad_cli.cli.job_line.{name}"))
        code = main(words)
    if commands := _commands(out.getvalue()):
        raise AssertionError(f"stdout commands the terminal: {commands}")
    return code, err.getvalue()


def _what_is_wrong(case: Case, code: int, said: str) -> str | None:
    if code not in (0, 2):
        return f"exit code {code}: {said[:500]}"
    if "Traceback (most recent call last)" in said:
        return f"a traceback: {said[-500:]}"
    if commands := _commands(said):
        return f"stderr commands the terminal: {commands}"
    if len(said) > LONGEST:
        return f"{len(said)} characters are said"
    if code == 0:
        return None
    if not re.search(r"embedgrad: \S", said):
        return f"exit code 2 without a paragraph: {said[:500]!r}"
    if not any(name in said for name in case.names):
        return f"neither file nor place is named: {said[:500]}"
    return None


def _commands(text: str) -> set[str]:
    """Control characters that a terminal would obey. Carriage returns end the lines of csv."""
    return {one for one in text if unicodedata.category(one) == "Cc"} - set("\n\t\r")


def _digests(folder: Path, files: Mapping[str, bytes]) -> dict[str, str]:
    there = {name: folder / name for name in files}
    return {n: hashlib.sha256(f.read_bytes()).hexdigest() if f.is_file() else "gone" for n, f in there.items()}


def _memory() -> int:
    """The most that this process has held so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Hung(BaseException):
    """A case does not end. No `Exception`, so that nobody takes it for a failure of a library."""


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """What Python can interrupt is one case's fault; else the process ends and says where it was."""

    def end(*_: Any) -> None:
        raise Hung(f"it did not end in {HUNG / 2:g} seconds")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, HUNG / 2)
    faulthandler.dump_traceback_later(HUNG, exit=True, file=os.fdopen(os.dup(2), "w"))
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
