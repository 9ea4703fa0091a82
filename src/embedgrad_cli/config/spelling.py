"""Names that were probably meant, values as YAML writes them, and texts that nothing can write."""

from __future__ import annotations

import difflib
import re
from typing import Any

from embedgrad_cli.storage.nearest_name import nearest

__all__ = ["half_character", "natural", "nearest", "nearest_key", "one_line", "shown"]
_WORDS = {None: "null", True: "true", False: "false"}


def nearest_key(key: str, known: list[str]) -> str:
    """A hint with the setting that was probably meant: the same last part, or a similar spelling."""
    last = key.rpartition(".")[2]
    same_last = [k for k in known if k.rpartition(".")[2] == last]
    if same_last:
        return f" Did you mean {' or '.join(same_last[:3])}?"
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.7)
    close_last = nearest(last, [k.rpartition(".")[2] for k in known])
    hits = close or [k for k in known if k.rpartition(".")[2] == close_last][:3]
    return f" Did you mean {' or '.join(hits)}?" if hits else ""


def shown(value: Any) -> str:
    """A value as YAML writes it, a text in quotes: `shown("a")` is "'a'"."""
    return _WORDS[value] if value is None or isinstance(value, bool) else repr(value)


def one_line(value: object) -> str:
    """A value as YAML writes it on one line, a text without quotes: `one_line([True, None])` is "[true, null]"."""
    if value is None or isinstance(value, bool):
        return _WORDS[value]
    if isinstance(value, list):
        return f"[{', '.join(one_line(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {one_line(item)}' for key, item in value.items())}}}"
    text = str(value)
    return repr(text) if "\n" in text else text


def natural(text: object) -> list[Any]:
    """A key to sort by in which `run 2` comes before `run 10`."""
    parts = re.split(r"(\d+)", str(text).lower())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


def half_character(text: str) -> str | None:
    """In words, the first half of a surrogate pair in a text: JSON can write one, and a reader keeps bytes as such."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        byte = f"byte 0x{code - 0xDC00:02x}, or " if 0xDC80 <= code <= 0xDCFF else ""
        return f"not UTF-8 ({byte}\\u{code:04x} alone, which is half of a character)"
    return None
