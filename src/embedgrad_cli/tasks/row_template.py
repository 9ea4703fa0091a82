"""Text with `{field}` places that a record of the data fills."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Any

from embedgrad_cli.config.spelling import half_character
from embedgrad_cli.errors import ConfigError


class RowTemplate:
    """Text with `{field}` places, filled from a record: `RowTemplate("task.query", "Q: {question}")`.

    A field is a plain name, or a path of names and list positions ("answer.text", "options.0") into nested records.
    Braces in a record's own text mean nothing. Raises ConfigError for a template that is malformed or names no field.
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
        try:
            value = value_at(record, name)
        except KeyError:
            found = ", ".join(map(str, record)) or "none"
            raise ValueError(f"no column {name!r}, which {self.key} names (columns found: {found})") from None
        text = as_text(value, name)
        if text is None:
            kind = "null" if value is None or value != value else f"a {type(value).__name__}"
            raise ValueError(f"column {name!r} is {kind}, but {self.key} needs a text or a number")
        return text


def value_at(record: Mapping[str, Any], name: str) -> Any:
    """The value of a column, or at a path into nested ones. Raises KeyError if there is none."""
    if name in record:
        return record[name]
    value: Any = record
    for part in name.split("."):
        if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, Mapping) and part in value:
            value = value[part]
        else:
            raise KeyError(name)
    return value


def as_text(value: Any, column: str) -> str | None:
    """A text or a number as text; None for what is neither (null, NaN, a list).

    Raises:
        ValueError: the text holds what UTF-8 cannot write.
    """
    if isinstance(value, str):
        if half := half_character(value):
            raise ValueError(f"column {column!r} is {half}")
        return value
    return str(value) if isinstance(value, int | float) and value == value else None
