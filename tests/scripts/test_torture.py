"""The torture itself: it sees every event, and what is not survived shows."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from embedgrad_cli.storage.files import write_atomically  # noqa: E402
from torture.check import differences, half_written  # noqa: E402
from torture.events import Act, Event, fail_from, kill_at, watch  # noqa: E402

OLD, NEW = b'{"old": 1}\n', b'{"new": [2, 3]}\n'


def in_place(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)


def forked(work: Callable[[], None]) -> int:
    """How a process ends that does the work."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def written(write: Callable[[Path, bytes], None], folder: Path, act: Act) -> tuple[int, Path]:
    """A file that is replaced while `act` watches."""
    file = folder / "file.json"
    file.write_bytes(OLD)

    def work() -> None:
        watch(folder, act)
        write(file, NEW)

    return forked(work), file


def events(write: Callable[[Path, bytes], None], folder: Path) -> list[str]:
    seen = folder.parent / "events"

    def note(event: Event) -> None:
        with seen.open("a") as file:
            file.write(f"{event.kind}\n")

    assert written(write, folder, note)[0] == 0
    return seen.read_text().split()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "watched").mkdir()
    return tmp_path / "watched"


def test_every_event_of_a_write_is_seen(folder: Path) -> None:
    assert events(write_atomically, folder) == ["open", "write", "fsync", "rename"]


def test_killed_at_every_event_the_file_is_the_old_or_the_new_one(folder: Path) -> None:
    for number in range(1, len(events(write_atomically, folder)) + 1):
        code, file = written(write_atomically, folder, kill_at(number))
        assert code == -signal.SIGKILL
        assert file.read_bytes() in (OLD, NEW)
        assert half_written(folder) == []


def test_refused_at_every_event_nothing_is_left_beside_the_old_file(folder: Path) -> None:
    for number in range(1, len(events(write_atomically, folder)) + 1):
        code, file = written(write_atomically, folder, fail_from(number, 28))
        assert code == 1
        assert [path.name for path in folder.iterdir()] == ["file.json"]
        assert file.read_bytes() == OLD


def test_a_file_that_is_written_in_place_is_found(folder: Path) -> None:
    code, _ = written(in_place, folder, kill_at(2))
    assert code == -signal.SIGKILL
    (wrong,) = half_written(folder)
    assert wrong.startswith("file.json is half written")


def test_differences_are_named_by_file() -> None:
    found, wanted = {"a": 1, "b": 2, "d": 4}, {"a": 1, "b": 3, "c": 4}
    assert differences(found, wanted) == ["c is missing", "d was left behind", "b differs"]
