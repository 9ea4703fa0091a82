"""Files that are written whole or not at all, or grow by whole lines."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path, PureWindowsPath
from typing import Any, TypeVar

import yaml

from embedgrad_cli.errors import UserError
from embedgrad_cli.storage.record import Json, Record

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one where libyaml is there: ten times as fast
PARTIAL = ".partial"
_LEFTOVER = re.compile(rf"\.(?P<name>.+)\.[a-z0-9_]{{8}}{re.escape(PARTIAL)}", re.DOTALL)

MOST_VALUES = 1_000_000  # in a YAML file

T = TypeVar("T")


def stays_below(name: str) -> bool:
    """Whether a name, put behind a folder, is something in that folder or below it, on any system.

    Of a name only: a link in the folder is its owner's.
    """
    path = PureWindowsPath(name)  # which knows both separators
    return not (path.anchor or ".." in path.parts)


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary file beside `path`, flush it to disk, rename it. Nobody ever sees half a file."""
    temporary = place_beside(path)
    file = temporary.open("xb")  # as any new file is readable: to whom the umask says
    try:
        with file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def place_beside(path: Path) -> Path:
    """Where a file or folder can grow that takes the name `path` when it is whole. It is not made."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove what killed processes left of files and folders that grew in `folder`, or of that `name` alone.

    Only for who holds the folder's lock: what another process writes just now looks the same.
    """
    for path in folder.iterdir():
        leftover = _LEFTOVER.fullmatch(path.name)
        if leftover is None or name not in (None, leftover["name"]):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def write_json(path: Path, content: Json | Record) -> None:
    write_atomically(path, (json.dumps(_plain(content), indent=2, ensure_ascii=False) + "\n").encode())


def write_json_lines(path: Path, rows: Iterable[Json | Record]) -> None:
    write_atomically(path, "".join(json_line(row) for row in rows).encode())


def json_line(row: Json | Record) -> str:
    """A line of a jsonl file."""
    return json.dumps(_plain(row), ensure_ascii=False) + "\n"


def append_to_disk(path: Path, lines: str) -> None:
    """Put lines behind those of a file, and flush them to disk."""
    with path.open("ab") as file:
        file.write(lines.encode())
        file.flush()
        os.fsync(file.fileno())


def read_appended(path: Path, read: Callable[[str], T]) -> list[T]:
    """What was appended to a file, line by line. A line that a killed run left half-written is cut off."""
    found, whole = list[T](), 0
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):  # whole or not: what is appended next would stand on the same line
            break
        try:
            found.append(read(line.decode()))
        except (UserError, ValueError, TypeError, IndexError, RecursionError):
            break
        whole += len(line)
    os.truncate(path, whole)
    return found


def read_yaml(path: Path) -> Json:
    """A YAML file that holds a mapping.

    Raises:
        UserError: it cannot be read, is no YAML, or holds something else.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), LOADER)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        why = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise UserError(f"{path} cannot be read: {why}. Copy it again, or repeat what wrote it.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no mapping of keys to values. Copy it again, or repeat what wrote it.")
    if not _has_end(content):
        raise UserError(f"{path} holds a value within itself, or too many. Copy it again, or repeat what wrote it.")
    return content


def _has_end(content: Json) -> bool:
    """Whether a tree can be walked: YAML can write a value within itself, or a billion of them in ten lines."""
    waiting: list[Any] = [content]
    for _ in range(MOST_VALUES):
        if not waiting:
            return True
        value = waiting.pop()
        waiting.extend(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
    return False


def write_yaml(path: Path, content: Json) -> None:
    write_atomically(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode())


def _plain(content: Json | Record) -> Json:
    return content.to_json() if isinstance(content, Record) else content
