"""Records of a file become rows of a task: the query, the text the loss is on, the answer that is graded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from string import Formatter
from typing import Any

from embedgrad_cli.errors import ConfigError, DataError
from embedgrad_cli.schema import TaskConfig
from embedgrad_cli.tasks import graders

SHOWN_DEFECTS = 10
SHOWN_PLACES = 3


@dataclass(frozen=True, slots=True)
class Row:
    """One example.

    `id` is "FILE_STEM:ROW", counted from 0 in the file; `target` is the text the loss is taken on; `answer` is
    the label (kind: choice) or what the grader finds in the target (kind: generation); `fields` holds what
    `task.keep` names.
    """

    id: str
    query: str
    target: str
    answer: str
    fields: dict[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Source:
    """What was read from one file or hub split: numbered records, and the words that errors use for them."""

    label: str
    stem: str
    records: list[tuple[int, Mapping[str, Any]]]
    unit: str = "row"


@dataclass
class Defects:
    """Everything wrong with the data, reported at once: equal defects of a file share one line."""

    places: dict[tuple[str, str, str], list[int]] = field(default_factory=dict)

    def add(self, source: Source, number: int, what: str) -> None:
        """Note a defect of the record `number`, counted from 0; people are told numbers from 1."""
        self.places.setdefault((source.label, source.unit, what), []).append(number + 1)

    def raise_if_any(self) -> None:
        """Raise a DataError with the first ten defects, if there is one."""
        if not self.places:
            return
        lines = [_describe(*key, numbers) for key, numbers in self.places.items()]
        hidden = len(lines) - SHOWN_DEFECTS
        shown = lines[:SHOWN_DEFECTS] + ([f"and {hidden} more such lines"] if hidden > 0 else [])
        mend = "Correct the file, or the task's settings (task.query, task.target, task.labels, task.choices)."
        raise DataError("\n".join([*shown, mend]) if len(shown) > 1 else f"{shown[0]}. {mend}")


class RowTemplate:
    """Text with `{field}` places, filled from a record: `RowTemplate("task.query", "Q: {question}")`.

    A field is a plain name, or a path of names ("answer.text") into nested records. Braces in a record's own text
    mean nothing. Raises ConfigError for a template that is malformed or names no field.
    """

    def __init__(self, key: str, text: str) -> None:
        self.key = key
        try:
            self.parts = list(Formatter().parse(text))
        except ValueError as error:
            raise ConfigError([f"{key}={text!r} is not a template: {error}. Write a literal brace twice."]) from None
        self.names = [name for _, name, _, _ in self.parts if name is not None]
        unclear = [
            n for _, n, spec, conversion in self.parts if n is not None and (not n or "[" in n or spec or conversion)
        ]
        if unclear or not self.names:
            raise ConfigError([f"{key}={text!r} must name the row's fields in plain braces, like {{question}}."])

    def fill(self, record: Mapping[str, Any]) -> str:
        """The text for one record. Raises ValueError with a description of the defect."""
        filled = (
            literal if name is None else literal + self._text_of(record, name) for literal, name, _, _ in self.parts
        )
        text = "".join(filled).strip()
        if not text:
            raise ValueError(f"{self.key} is empty for this row (field {', '.join(self.names)})")
        return text

    def _text_of(self, record: Mapping[str, Any], name: str) -> str:
        value: Any = record
        if name in record:
            value = record[name]
        else:
            for part in name.split("."):
                if not isinstance(value, Mapping) or part not in value:
                    found = ", ".join(map(str, record)) or "none"
                    raise ValueError(f"no column {name!r}, which {self.key} names (columns found: {found})")
                value = value[part]
        if isinstance(value, str):
            return value
        if isinstance(value, int | float) and value == value:
            return str(value)
        kind = "null" if value is None or value != value else f"a {type(value).__name__}"
        raise ValueError(f"column {name!r} is {kind}, but {self.key} needs a text or a number")


class RowMaker:
    """Makes rows of records as a task's YAML says. Raises ConfigError when the YAML contradicts itself."""

    def __init__(self, task: TaskConfig) -> None:
        self.query = RowTemplate("task.query", task.query)
        self.target = RowTemplate("task.target", task.target)
        self.keep = task.keep or []
        self.labels = {str(value): label for value, label in (task.labels or {}).items()}
        self.choices = list(task.choices or dict.fromkeys(self.labels.values()))
        self.is_choice = task.kind == "choice"
        self.has_labels = self.is_choice or (task.grader == "label" and bool(self.choices))
        self.grader_name, self.grader = task.grader, graders.get(task.grader, self.choices or None)
        try:
            self.remove = re.compile(task.remove) if task.remove else None
        except re.error as error:
            raise ConfigError([f"task.remove={task.remove!r} is not a regular expression: {error}."]) from None
        if self.is_choice and not task.choices:
            raise ConfigError([f"task.choices is missing: task {task.name} of kind choice scores the labels in it."])

    def rows(self, source: Source, defects: Defects) -> list[Row]:
        """The rows of one source, in its order; a record that is no row is noted in `defects` instead."""
        made = []
        for number, record in source.records:
            try:
                made.append(self._row(f"{source.stem}:{number}", record))
            except ValueError as error:
                defects.add(source, number, str(error))
        return made

    def _row(self, row_id: str, record: Mapping[str, Any]) -> Row:
        query, target = self.query.fill(record), self.target.fill(record)
        if self.remove:
            target = self.remove.sub("", target).strip()
        if self.labels or self.has_labels:
            target = self._label(target)
        if self.is_choice:
            return Row(row_id, query, target, target, self._kept(record))
        answer = self.grader.extract(target)
        if answer is None:
            raise ValueError(
                f"the target holds no answer that the grader {self.grader_name} can find: {_short(target)}"
            )
        return Row(row_id, query, target, answer, self._kept(record))

    def _kept(self, record: Mapping[str, Any]) -> dict[str, str]:
        return {name: str(record[name]) for name in self.keep if name in record}

    def _label(self, value: str) -> str:
        label = self.labels.get(value, value)
        if label not in self.choices:
            raise ValueError(f"label outside the choices: {_short(value)} (choices: {', '.join(self._allowed())})")
        return label

    def _allowed(self) -> Iterable[str]:
        names = {label: value for value, label in self.labels.items()}
        return (f"{names[c]} = {c}" if c in names else c for c in self.choices)


def _describe(label: str, unit: str, what: str, numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:SHOWN_PLACES]))
    more = f" and {len(numbers) - SHOWN_PLACES} more" if len(numbers) > SHOWN_PLACES else ""
    return f"{label}, {unit} {shown}{more}: {what}"


def _short(text: str, length: int = 60) -> str:
    return repr(text if len(text) <= length else f"…{text[-length:]}")
