"""What is wrong with the data, gathered from all files and said at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from embedgrad_cli.errors import DataError, cause

SHOWN_DEFECTS = 10
SHOWN_PLACES = 3
MEND = "Correct the file, or the task's settings (task.query, task.target, task.labels, task.choices, …)."
MEND_ROWS = " Or leave such rows out, counted in the results, with task.broken=skip."

Record = tuple[int, Mapping[str, Any]]  # its number in the file, from 0, and its fields


@dataclass(frozen=True)
class Source:
    """One file or hub split: how to read it once more, and the words that errors use for it and its records.

    `revision` is the commit of a hub split.

    `read(defects)` yields the records one by one, so that a large file is never held twice; records that cannot be
    read are noted in `defects`.
    """

    label: str
    stem: str
    read: Callable[[Defects], Iterator[Record]]
    unit: str = "row"
    revision: str | None = None


@dataclass
class Defects:
    """Everything wrong with the data: equal defects of a file share one line."""

    places: dict[tuple[str, str, str], list[int]] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)

    def add(self, source: Source, number: int, what: str) -> None:
        """Note a defect of the record `number`, counted from 0; people are told numbers from 1."""
        what = what.encode(errors="backslashreplace").decode()  # it may quote what no terminal or file can take
        self.places.setdefault((source.label, source.unit, what), []).append(number + 1)

    def add_raised(self, source: Source, number: int, error: Exception) -> None:
        """Note what reading the record `number` raised. Not for running out of memory, which is raised again."""
        if isinstance(error, MemoryError):
            raise error
        self.add(source, number, _what_it_says(error))

    def add_file(self, what: str) -> None:
        """Note a whole file that is not what it should be. Such a defect is never skipped."""
        self.files.append(what)

    @property
    def lines(self) -> list[str]:
        """One line per kind of defect and file; the first ten."""
        lines = self.files + [_describe(*key, numbers) for key, numbers in self.places.items()]
        hidden = len(lines) - SHOWN_DEFECTS
        return lines[:SHOWN_DEFECTS] + ([f"and {hidden} more such lines"] if hidden > 0 else [])

    @property
    def num_rows(self) -> int:
        """Broken rows, each counted once per defect (a row has one: the first)."""
        return sum(map(len, self.places.values()))

    def raise_if_any(self, *, skip_rows: bool = False) -> None:
        """Raise a DataError with all defects, if there are any; with `skip_rows`, only for whole files."""
        if not self.files and (skip_rows or not self.places):
            return
        lines = self.lines
        if len(lines) > 1:
            raise DataError("\n".join([*lines, MEND + (MEND_ROWS if self.places else "")]))
        raise DataError(f"{lines[0]}. {MEND}{MEND_ROWS}" if self.places else f"{lines[0].rstrip('.')}.")


def _describe(label: str, unit: str, what: str, numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:SHOWN_PLACES]))
    more = f" and {len(numbers) - SHOWN_PLACES} more" if len(numbers) > SHOWN_PLACES else ""
    return f"{label}, {unit} {shown}{more}: {what}"


def _what_it_says(error: Exception) -> str:
    """A defect in words. Our own ValueErrors are in words already."""
    match error:
        case json.JSONDecodeError():
            return f"not JSON: {error.msg} at column {error.colno}"
        case UnicodeDecodeError():
            return f"not UTF-8 (byte 0x{error.object[error.start]:02x})"
        case RecursionError():
            return "its values are nested too deeply to be read"
        case ValueError():
            return str(error)
    return cause(error)
