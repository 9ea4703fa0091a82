"""Dataclasses that stand in files as JSON objects, read strictly: what is wrong is named by file and key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

from embedgrad_cli.errors import UserError
from embedgrad_cli.storage.structure import NOTHING, Problem, make_converter, structure

Json = dict[str, Any]  # an object of JSON or YAML whose keys are not ours to name
SHOWN_PROBLEMS = 3
LONGEST_VALUE = 60
MEND = "Copy it again, or repeat what wrote it."
CONVERTER = make_converter()


class Record:
    """A dataclass that stands in a file as a JSON object. A field whose default is None may be absent there."""

    @classmethod
    def from_json(cls, content: object, place: str, error: type[UserError] = UserError) -> Self:
        """Make a record of parsed JSON.

        Args:
            place: what messages call it: a file, or "artifact=FILE".

        Raises:
            UserError: names every key that is missing, unknown or not what it should be. Raised as `error`.
        """
        record, problems = structure(content, cls, CONVERTER)
        if record is None:
            raise error(f"{place} cannot be used: {describe_problems(problems)}")
        return record

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a JSON file that holds one record.

        Raises:
            UserError: it cannot be read, is no JSON, or not this record.
        """
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
            raise UserError(f"{file} cannot be read: {why}. {MEND}") from None
        return cls.parse(text, str(file))

    @classmethod
    def read_lines(cls, file: Path) -> list[Self]:
        """Read a jsonl file that holds one record a line.

        Raises:
            UserError: it cannot be read, or a line, which is named, is no JSON or not this record.
        """
        try:  # bytes, because a text may hold characters that end a line of text but not of a file
            lines = [line.decode() for line in file.read_bytes().splitlines()]
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
            raise UserError(f"{file} cannot be read: {why}. {MEND}") from None
        return [cls.parse(line, f"{file}, line {number}") for number, line in enumerate(lines, start=1)]

    @classmethod
    def parse(cls, text: str, place: str) -> Self:
        """Read one record as JSON.

        Raises:
            UserError: it is no JSON, or not this record.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{place} cannot be read: {error}. {MEND}") from None
        return cls.from_json(content, place)

    def to_json(self) -> Json:
        return CONVERTER.unstructure(self)


def describe_problems(problems: list[Problem]) -> str:
    """What is wrong in a file, and how to mend it, in a few sentences."""
    shown = "; ".join(map(_describe, problems[:SHOWN_PROBLEMS]))
    more = len(problems) - SHOWN_PROBLEMS
    mend = MEND
    if any(problem.expected is None for problem in problems):
        mend = "If a newer embedgrad wrote it, upgrade: pip install -U embedgrad. Otherwise copy it again."
    return f"{shown}{f'; and {more} more' if more > 0 else ''}. {mend}"


def _describe(problem: Problem) -> str:
    key = f"key {problem.key}" if problem.key else "its content"
    if problem.found is NOTHING:
        return f"{key} is missing"
    found = repr(problem.found)
    found = found if len(found) <= LONGEST_VALUE else f"{found[: LONGEST_VALUE - 1]}…"
    if problem.expected is None:
        return f"{key} is {found}, and this version knows no such key"
    return f"{key} is {found}, expected was {problem.expected}"
