"""What a setting is in the schema: a field of a dataclass with a few words and a range."""

from __future__ import annotations

from dataclasses import MISSING, field
from typing import Any


def setting(
    words: str,
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    right: bool = False,
    default: Any = MISSING,
) -> Any:
    """A dataclass field with a few words for `--help` and an optional range (both ends inclusive, `above` not).

    The defaults of users stand in `conf/`. A `default` here is that of a setting that code may leave out.

    A `right` lets something happen that an artifact's author must not decide, such as running code: it holds only if
    the user gives it in this command, whatever an artifact or a run directory recorded.
    """
    metadata = {"words": words, "minimum": minimum, "above": above, "maximum": maximum, "right": right}
    return field(metadata=metadata, default=default)


def group(schema: type, words: str) -> Any:
    """A dataclass field for a group of settings that has defaults for all of them."""
    return field(default_factory=schema, metadata={"words": words, "right": False})
