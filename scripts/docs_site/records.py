"""What stands in the files of a run directory, from the dataclasses that are read from them."""

from __future__ import annotations

import importlib
import types
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from docs_site.docstrings import as_markdown
from docs_site.settings import WORDS
from embedgrad_cli.storage.record import Record

MODULES = (  # of `storage`
    *("results_record", "arm_records", "sample_records", "metrics_records"),
    *("training_answers", "artifact_metadata"),
)
PAIR = "two numbers"


def records(*names: str) -> str:
    """A heading, the docstring and a table of the keys of each record and of those that stand in it.

    Args:
        names: of classes in the storage room; records that an earlier one holds are not repeated.
    """
    modules = [importlib.import_module(f"embedgrad_cli.storage.{name}") for name in MODULES]
    waiting = [next(getattr(module, name) for module in modules if hasattr(module, name)) for name in names]
    text, seen = list[str](), set(waiting)
    while waiting:
        record = waiting.pop(0)
        text += _section(record)
        for inner in _inner(record):
            if inner not in seen:
                seen.add(inner)
                waiting.append(inner)
    return "\n".join(text)


def _section(record: type[Record]) -> Iterator[str]:
    hints = get_type_hints(record)
    docstring = record.__doc__ or ""
    yield f"### {record.__name__}\n"
    if not docstring.startswith(f"{record.__name__}("):  # which dataclass writes by itself
        yield as_markdown(docstring) + "\n"
    yield "| key | value |\n| --- | --- |"
    for item in fields(record):  # type: ignore[arg-type]
        yield f"| `{item.name}` | {_value(hints[item.name], item)} |"
    yield ""


def _value(kind: Any, item: Field[Any]) -> str:
    inner = [part for part in get_args(kind) if part is not type(None)]
    is_optional = type(None) in get_args(kind)
    may_lack = is_optional and item.default is not MISSING
    words = _words(Union[tuple(inner)] if is_optional else kind)  # noqa: UP007
    return words + (", may be absent" if may_lack else " or null" if is_optional else "")


def _words(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_words, inner))
    if origin is list:
        return f"list of {_words(inner[0])}" + ("s" if inner[0] in (str, int, float) else "")
    if origin is dict:
        return "mapping" if inner[1] is Any else f"{_words(inner[1])} by name".replace("name by name", "two names")
    if isinstance(kind, type) and issubclass(kind, Record):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    return WORDS.get(kind, PAIR)


def _inner(kind: Any) -> Iterator[type[Record]]:
    """The records that stand in a record, or in a type."""
    hints = get_type_hints(kind) if isinstance(kind, type) and issubclass(kind, Record) else {}
    for part in (*hints.values(), *(get_args(kind) if not hints else ())):
        if isinstance(part, type) and issubclass(part, Record):
            yield part
        else:
            yield from _inner(part)
