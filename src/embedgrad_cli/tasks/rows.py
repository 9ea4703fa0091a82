"""Records of a file become rows of a task: the query, the text the loss is on, the answer that is graded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from embedgrad_cli.config.fields import DATA_FIELD
from embedgrad_cli.config.task_schema import TaskConfig
from embedgrad_cli.errors import ConfigError, DataError, EmbedgradError
from embedgrad_cli.guards.limits import TookTooLong, at_most
from embedgrad_cli.tasks import graders
from embedgrad_cli.tasks.defects import Defects, Source
from embedgrad_cli.tasks.row_template import RowTemplate, as_text, value_at

SECONDS = 10.0  # of computing, for one row; the usual one takes a few microseconds
SHOWN = 60  # characters of a text in a message, its last


@dataclass(frozen=True, slots=True)
class Row:
    """One example.

    `id` is "NAME:ROW": the file as `task.split` names it, and the row, counted from 0. `target` is the text the loss is
    taken on; `answer` is the label (kind: choice) or what the grader finds in the target (kind: generation). `choices`
    are the labels that this row's answer is one of (empty: any text), `fields` what `task.keep` names, for breakdowns.
    """

    id: str
    query: str
    target: str
    answer: str
    choices: tuple[str, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)


class RowMaker:
    """Makes rows of records as a task's YAML says. Raises ConfigError when the YAML contradicts itself."""

    def __init__(self, task: TaskConfig) -> None:
        self.query = RowTemplate("task.query", task.query)
        self.target = RowTemplate("task.target", task.target)
        self.remove = _compile("task.remove", task.remove)
        self.target_pattern = _compile("task.target_pattern", task.target_pattern)
        self.labels = LabelMap(task)
        self.is_choice, self.grader_name = task.kind == "choice", task.grader
        graders.get(task.grader)  # an unknown one is found before anything is read
        self.keep = dict.fromkeys(task.keep, False)  # whether a row had the field
        self._has_read = False  # whether any record could be
        self._no_fields: Mapping[str, str] = {}

    def rows(self, source: Source, defects: Defects) -> list[Row]:
        """The rows of one source, in its order; a record that is no row is noted in `defects` instead."""
        made = []
        for number, record in source.read(defects):
            self._has_read = True
            try:
                with at_most(SECONDS):
                    made.append(self._row(f"{source.stem}:{number}", record))
            except EmbedgradError:
                raise
            except TookTooLong:
                raise self._endless(source, number) from None
            except Exception as error:  # whatever one row's content raises is that row's, a grader's errors included
                defects.add_raised(source, number, error)
        return made

    def _endless(self, source: Source, number: int) -> DataError:
        """Raised at once: every row may take as long."""
        patterns = {
            "remove": self.remove,
            "target_pattern": self.target_pattern,
            "choices_pattern": self.labels.pattern,
        }
        given = " and ".join(f"task.{name}={pattern.pattern!r}" for name, pattern in patterns.items() if pattern)
        of = given or f"the grader {self.grader_name}"
        return DataError(
            f"{source.label}, {source.unit} {number + 1}: {of} did not end in {SECONDS:g} seconds of computing. A "
            "pattern such as (a+)+$ tries every way to divide a text: write it without a repetition in a repetition. "
            "Or shorten this row."
        )

    def check_kept(self, defects: Defects) -> None:
        """After all rows: a field of `task.keep` that none of them had is a defect, if any could be read at all."""
        for name, seen in self.keep.items():
            if self._has_read and not seen:
                defects.add_file(f"task.keep: no row of any file has a column {name!r}. Name one that some rows have.")

    def _row(self, row_id: str, record: Mapping[str, Any]) -> Row:
        kept = self._kept(record)  # first: a row that is broken has the columns that it has, too
        query, target = self.query.fill(record), self._target(record)
        choices = self.labels.choices_of(query, record)
        target, choices = self.labels.label_of(target, choices, record)
        answer: str | None = target
        if not self.is_choice:
            answer = graders.get(self.grader_name, choices).gold(target)
        if answer is None:
            raise ValueError(
                f"the target holds no answer that the grader {self.grader_name} can find: {_short(target)}"
            )
        return Row(row_id, query, target, answer, choices, kept)

    def _target(self, record: Mapping[str, Any]) -> str:
        target = self.target.fill(record)
        if self.remove:
            target = self.remove.sub("", target).strip()
        if self.target_pattern:
            found = _matches(self.target_pattern, target)
            if not found:
                raise ValueError(f"task.target_pattern matches nothing in the target: {_short(target)}")
            target = found[-1]
        if not target:
            raise ValueError("the target is empty once task.remove has been applied")
        return target

    def _kept(self, record: Mapping[str, Any]) -> Mapping[str, str]:
        """The kept fields that this row has: files of one task may name them differently."""
        if not self.keep:
            return self._no_fields
        fields = {}
        for name in self.keep:
            try:
                fields[name] = as_text(value_at(record, name), name) or ""
                self.keep[name] = True
            except KeyError:
                pass
        return fields


class LabelMap:
    """What a row's answer may be, and what the data's values are called: `choices`, `choices_pattern`, `labels`."""

    def __init__(self, task: TaskConfig) -> None:
        self.labels = {str(value): label for value, label in (task.labels or {}).items()}
        self.choices = tuple(task.choices or dict.fromkeys(self.labels.values()))
        self.pattern = _compile("task.choices_pattern", task.choices_pattern)
        self.is_choice = task.kind == "choice"
        self.is_labelled = self.is_choice or task.grader == "label"
        self.templates = {
            text: RowTemplate("task.choices", text)
            for text in (*self.choices, *self.labels.values())
            if DATA_FIELD.search(text)
        }
        if self.is_choice and not task.choices and not self.pattern:
            raise ConfigError([f"task.choices is missing: task {task.name} of kind choice scores the labels in it."])

    def choices_of(self, query: str, record: Mapping[str, Any]) -> tuple[str, ...]:
        """The row's choices: found in its query, or filled from its fields, or those of every row."""
        found = _matches(self.pattern, query) if self.pattern else []
        choices = tuple(dict.fromkeys(found)) or self.choices
        if self.templates:
            choices = tuple(self._fill(choice, record) for choice in choices)
        if self.is_choice and len(choices) < 2:
            raise ValueError(f"task.choices_pattern finds {len(choices)} choice(s) in the query, at least 2 are needed")
        return choices if self.is_labelled else ()

    def label_of(self, value: str, choices: tuple[str, ...], record: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
        """The label that a value of the data stands for, and the choices it is one of."""
        label = self._fill(self.labels.get(value, value), record)
        if label in choices or not choices:
            return label, choices
        if self.pattern and not self.is_choice:
            return label, ()  # BBH has rows with broken options, which are answered in words
        allowed = ", ".join(self._allowed(choices))
        raise ValueError(f"label outside the choices: {_short(value)} (choices: {allowed})")

    def _fill(self, text: str, record: Mapping[str, Any]) -> str:
        return self.templates[text].fill(record) if text in self.templates else text

    def _allowed(self, choices: Iterable[str]) -> Iterable[str]:
        values = {label: value for value, label in self.labels.items()}
        return (f"{values[c]} = {c}" if c in values else c for c in choices)


def _compile(key: str, pattern: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern) if pattern else None
    except re.error as error:
        raise ConfigError([f"{key}={pattern!r} is not a regular expression: {error}."]) from None


def _matches(pattern: re.Pattern[str], text: str) -> list[str]:
    """Every match: what its first group that took part holds, or the whole match if it has no group."""
    found = (next(filter(None, match.groups()), match.group()) for match in pattern.finditer(text))
    return [one.strip() for one in found if one.strip()]


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"…{text[-SHOWN:]}")
