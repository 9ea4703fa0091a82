"""One process per folder: the second one is refused, with the first's name.

The lock is the operating system's (`flock`, on Windows `msvcrt`), taken by `filelock` on a file that also says who
holds it. The system gives it up with the process, however that ends: what a killed process leaves is a file, and never
an obstacle. So nothing here asks whether a process id still lives, which after a restart, or on another host, would be
another process's.

On network file systems the lock is as good as theirs. NFS passes it on to the server, which gives up the locks of a
client that crashed once it is back or its lease has run out. Some have none (Lustre without the option `flock`): there
the run goes on unguarded, and a warning says so.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shlex
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from embedgrad_cli.errors import UserError
from embedgrad_cli.storage.files import remove_leftovers
from embedgrad_cli.storage.record import Record

LOCK_FILE = ".lock"
RUN_FILE = "config.yaml"  # where it is, a folder is a run directory
PATIENCE = 0.5  # seconds in which another process may end, or write its name behind the lock that it has just taken
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # what a file system answers that has none

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Holder(Record):
    """The process that holds a lock. `started` is when it took it, in ISO 8601."""

    process: int
    host: str
    started: str
    command: str

    @classmethod
    def this(cls) -> Holder:
        """The process that runs this."""
        started = datetime.now().astimezone().isoformat(timespec="seconds")
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        return cls(process=os.getpid(), host=socket.gethostname(), started=started, command=command)

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.started}: {self.command}"


@contextmanager
def lock_run(output_dir: Path) -> Iterator[None]:
    """Within it, no other process writes into this run directory.

    The folder is made if need be, and is gone afterwards if no run was written into it. What a killed process left half
    written is removed.

    Raises:
        UserError: another process holds the lock, or the folder cannot be written.
    """
    if output_dir.is_dir() and not os.access(output_dir, os.W_OK):  # it can only be read, and readers need no lock
        yield
        return
    with _lock(output_dir / LOCK_FILE, output_dir, lambda: (output_dir / RUN_FILE).exists()):
        yield


@contextmanager
def lock_export(output_dir: Path, setting: str = "output_dir") -> Iterator[None]:
    """Within it, no other process exports to this folder. The lock is beside it, because it is renamed into its place.

    Args: setting: what names the folder, or a file, on the command line.

    Raises: as `lock_run`.
    """
    place = output_dir.resolve()
    with _lock(place.parent / f".{place.name}{LOCK_FILE}", output_dir, lambda: False, place.name, setting):
        yield


@contextmanager
def _lock(
    file: Path, output_dir: Path, keeps_file: Callable[[], bool], of: str | None = None, setting: str = "output_dir"
) -> Iterator[None]:
    """Args: of: the name whose leftovers beside the lock are removed; None: all are."""
    missing = [folder for folder in file.parents if not folder.exists()]
    with ExitStack() as stack:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            stack.callback(_remove_folders, missing)
            if _take(file, stack):
                remove_leftovers(file.parent, of)
        except Timeout:
            raise UserError(
                f"{setting}={output_dir} is in use by {_holder(file)}. Wait until it has ended, or stop it, or give "
                f"another {setting}; nothing was written."
            ) from None
        except OSError as error:
            raise UserError(
                f"{setting}={output_dir} cannot be used: {error.strerror or error}. Give a folder that can be "
                f"written, for instance {setting}=outputs/my-run."
            ) from error
        try:
            yield
        finally:  # the lock is still held: a process that has opened the file sees that it is gone, and makes another
            with suppress(OSError):
                os.truncate(file, 0) if keeps_file() else file.unlink()


def _take(file: Path, stack: ExitStack) -> bool:
    """Take the lock until the stack ends, and write down who has it. Returns: whether this file system has locks."""
    is_held = True
    try:
        # A lock that is the mere existence of a file would outlive its process.
        stack.enter_context(FileLock(file, timeout=PATIENCE, fallback_to_soft=False))
    except OSError as error:
        if isinstance(error, Timeout) or error.errno not in NO_LOCKS:
            raise
        is_held = False
        log.warning(
            "%s: this file system has no locks (%s), so nothing keeps a second process out. Start one only.",
            file.parent,
            error.strerror,
        )
    with suppress(OSError):  # on a full disk the lock holds all the same, and the run says itself what is wrong
        # In place: a file that takes its name would be another file, which nobody has locked.
        file.write_text(json.dumps(Holder.this().to_json()) + "\n", encoding="utf-8")
    return is_held


def _holder(file: Path) -> str:
    try:
        return str(Holder.read(file))
    except UserError:
        return f"another process, which has not said in {file} who it is"


def _remove_folders(folders: list[Path]) -> None:
    """Remove those that are empty."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
