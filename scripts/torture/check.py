"""What has to be so of a folder: nothing in it is half written, and it is the one that an undisturbed run leaves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from safetensors import safe_open

# Times, and what depends on them, differ between equal runs; the log and the page hold some.
OF_TIME = {"seconds", "timing", "peak_memory_bytes", "tokens_per_second"}
TIMED = {"embedgrad.log", "multirun.yaml"}
# Lines are appended to these. What a killed run left half is cut off by the run that goes on.
GROWING = {"metrics.jsonl", "answers.partial.jsonl", "targets.partial.jsonl"}


def contents(place: Path, name: str) -> dict[str, Any]:
    """What is in `place` under a name, and beside it under names that are made of it: by file, without times."""
    files = [file for file in sorted(place.rglob("*")) if file.is_file() and not _is_furniture(file, place)]
    return {str(file.relative_to(place)): _content(file) for file in files if name in file.relative_to(place).parts[0]}


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """In words, file by file."""
    wrong = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    wrong += [f"{name} was left behind" for name in sorted(found.keys() - wanted.keys())]
    return wrong + [f"{name} differs" for name in sorted(found.keys() & wanted.keys()) if found[name] != wanted[name]]


def half_written(place: Path) -> list[str]:
    """The files that are not whole, of those that a reader may come upon at any time."""
    return [
        f"{file.relative_to(place)} is half written: {why}"
        for file in sorted(place.rglob("*"))
        if file.is_file() and not _is_furniture(file, place) and not _is_growing(file, place)
        if (why := _damage(file)) is not None
    ]


def _is_furniture(file: Path, place: Path) -> bool:
    return (place / file.relative_to(place).parts[0]).is_symlink()


def _is_growing(file: Path, place: Path) -> bool:
    """Whether nobody takes it for whole: its name, or its folder's, says that it grows."""
    return file.name in GROWING or any(part.startswith(".") for part in file.relative_to(place).parts)


def _damage(file: Path) -> str | None:
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="np") as opened:
                for key in opened.keys():  # noqa: SIM118 - not a dict
                    opened.get_tensor(key)
        elif file.suffix == ".json":
            json.loads(file.read_text())
        elif file.suffix == ".jsonl":
            list(_lines(file))
        elif file.suffix in (".yaml", ".yml"):
            yaml.safe_load(file.read_text())
        elif file.suffix == ".html" and not file.read_text().rstrip().endswith("</html>"):
            return "it does not end with </html>"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _content(file: Path) -> Any:
    if file.name in TIMED or file.name.endswith(".lock"):
        return "there"
    if file.suffix == ".html":
        return "whole" if _damage(file) is None else "half"
    try:
        if file.suffix == ".json":
            return _without_times(json.loads(file.read_text()))
        if file.suffix == ".jsonl":
            return [_without_times(row) for row in _lines(file)]
    except ValueError:
        return "no JSON"
    if file.name == "config.yaml":  # of a sweep's job it names the folder; on a terminal it is not quiet
        return re.sub(r"^(output_dir|quiet): .*$", "", file.read_text(), flags=re.M)
    return file.read_bytes()


def _lines(file: Path) -> Iterator[Any]:
    text = file.read_text()
    if text and not text.endswith("\n"):
        raise ValueError("its last line has no end")
    yield from (json.loads(line) for line in text.split("\n")[:-1])


def _without_times(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_times(value) for key, value in content.items() if key not in OF_TIME}
    return [_without_times(value) for value in content] if isinstance(content, list) else content


def is_traceback(said: str) -> bool:
    return bool(re.search(r"^Traceback \(most recent call last\)", said, re.M))
