"""Every setting of optimize, evaluate and export: key, type, range, default, meaning; and every choice of a group."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Sequence
from dataclasses import Field, fields
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from omegaconf import OmegaConf

from embedgrad_cli.config.build import COMMANDS, MISSING_VALUE, settings
from embedgrad_cli.config.compose import Composer, is_the_artifacts
from embedgrad_cli.config.folder import conf_dir
from embedgrad_cli.config.spelling import one_line

# Where more is said about a group of settings.
PAGES = {
    "model": "models.md",
    "template": "commands.md#templates",
    "prompt": "tasks.md#demonstrations-in-the-prompt",
    "task": "tasks.md#every-key",
    "objective": "objectives.md",
    "optimizer": "method.md#the-equation",
    "trust_region": "method.md#the-equation",
    "launch": "parallel.md",
    "tracker": "trackers.md",
    "evaluation": "evaluation.md",
    "generation": "evaluation.md#several-answers-to-each-question",
    "requests": "serving.md#check-what-production-serves",
    "texts": "serving.md#check-what-production-serves",
    "search": "export-text.md#a-search-for-the-best-text",
}
WORDS = {str: "text", int: "integer", float: "number", bool: "true or false", type(None): "null"}
Row = tuple[str, str, str, str]


def settings_tables(*commands: str) -> str:
    """A heading and a table per group of settings. What an earlier command has just so is not repeated.

    Args:
        commands: all of `COMMANDS` where none is named.
    """
    text, known = [], set[tuple[str, ...]]()
    for command in commands or COMMANDS:
        rows = _rows(command)
        new = [row for row in rows if (row[0], row[1], row[3]) not in known]
        known |= {(row[0], row[1], row[3]) for row in rows}
        text.append(f"## `embedgrad {command}`\n")
        text += _as_above(rows, new)
        new.sort(key=lambda row: "." in row[0])  # those of no group first
        for part, group in groupby(new, key=lambda row: row[0].rpartition(".")[0].partition(".")[0]):
            text += _group(command, part, list(group))
    return "\n".join(text)


def choices() -> str:
    """What can be chosen by `GROUP=NAME`, with the first sentence of each file's comment."""
    text = []
    for group, names in Composer().groups().items():
        text.append(f"### `{group}=`\n\n| `{group}=` | |\n| --- | --- |")
        text += [f"| `{name}` | {_cell(_comment(conf_dir() / group / f'{name}.yaml'))} |" for name in names]
        text.append("")
    return "\n".join(text)


def type_words(kind: Any) -> str:
    """A type in words: `list[str] | None` is "list of texts, or null"."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        parts = [type_words(part) for part in inner]
        return " or ".join(parts) if len(parts) < 3 else f"{', '.join(parts[:-1])} or {parts[-1]}"
    if origin is list:
        word = type_words(inner[0])
        return f"list of {word if word.startswith('`') else f'{word}s'}"
    if origin is dict:
        return "mapping"
    return WORDS.get(kind) or ("anything" if kind is Any else f"{{{', '.join(item.name for item in fields(kind))}}}")


def _as_above(rows: Sequence[Row], new: Sequence[Row]) -> Iterator[str]:
    """Which settings are not repeated: whole groups, and the rest of those of which some are."""
    repeated = dict.fromkeys(row[0].partition(".")[0] for row in rows if row not in new)
    begun = {row[0].partition(".")[0] for row in new}
    whole, rest = [", ".join(f"`{n}`" for n in repeated if (n in begun) is partly) for partly in (False, True)]
    if repeated:
        yield f"As above: {whole}{f'; and of {rest} what is not listed here' if rest else ''}.\n"


def _group(command: str, part: str, rows: Sequence[Row]) -> Iterator[str]:
    if part:
        yield f"### `{part}`\n"
        words = next(item.metadata["words"] for item in fields(COMMANDS[command]) if item.name == part)
        more = f" More: [{PAGES[part].partition('.')[0]}]({PAGES[part]})." if part in PAGES else ""
        yield f"{words[0].upper()}{words[1:]}.{more}\n"
    yield "| key | value | default | meaning |\n| --- | --- | --- | --- |"
    yield from (f"| `{key}` | {_cell(kind)} | {default} | {_cell(meaning)} |" for key, kind, default, meaning in rows)
    yield ""


def _rows(command: str) -> list[Row]:
    base, composed = _defaults(command)
    rows = []
    for key, kind, item in settings(COMMANDS[command]):
        own = is_the_artifacts(command, key)
        default = "the artifact's" if own else _default(key, _at(base, key), _at(composed, key))
        rows.append((key, type_words(kind) + _range(item), default, item.metadata.get("words", "")))
    return rows


def _defaults(command: str) -> tuple[Any, Any]:
    """The settings before a choice of any group, and with the choices that a command makes by itself."""
    files = [conf_dir() / f"{name}.yaml" for name in ("base", "model_and_task", command)]
    if command == "export":
        del files[1]
    base = OmegaConf.to_container(OmegaConf.merge(*map(OmegaConf.load, files)), resolve=False)
    return base, Composer().settings(command)


def _default(key: str, base: Any, composed: Any) -> str:
    if base == MISSING_VALUE and composed == MISSING_VALUE:
        return "yours to give"
    if base == MISSING_VALUE:
        return f"that of `{key.partition('.')[0]}=`"
    return f"`{_cell(one_line(base))}`"


def _at(plain: Any, key: str) -> Any:
    for name in key.split("."):
        plain = plain.get(name, MISSING_VALUE) if isinstance(plain, dict) else MISSING_VALUE
    return plain


def _range(item: Field[Any]) -> str:
    ends = [("minimum", "from {}"), ("above", "above {}"), ("maximum", "up to {}")]
    said = [words.format(item.metadata[end]) for end, words in ends if item.metadata.get(end) is not None]
    return f", {', '.join(said)}" if said else ""


def _comment(file: Path) -> str:
    """The first sentence of the comment that a YAML begins with."""
    lines = file.read_text(encoding="utf-8").splitlines()
    words = [line.lstrip("# ") for line in lines if re.match(r"#(?! @package|   )", line)]
    return re.split(r"(?<=\.) (?=[A-Z])", " ".join(words))[0]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;") if text else ""
