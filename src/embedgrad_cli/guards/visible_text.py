"""Text of models, data and files as a terminal may have it: nothing in it commands the terminal."""

from __future__ import annotations

import logging
from io import TextIOWrapper
from typing import TextIO

KEPT = "\n\t"
LONGEST, HEAD, TAIL = 3000, 2000, 800  # characters of a line
# U+241B shows ESC as one character; what has no such picture is written as JSON writes it, so that JSON stays JSON.
_PICTURES = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in KEPT}
_WRITTEN = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), *range(0xD800, 0xE000))}
_VISIBLE = {**_PICTURES, **_WRITTEN}


def visible(text: str) -> str:
    """The text with its control characters made visible, but for line breaks and tabs; halves of characters too.

    An escape sequence in a row, an answer or a file could otherwise hide lines, forge them, or set the window's title.
    """
    return text.translate(_VISIBLE)


def shortened(text: str) -> str:
    """The text with its longest lines cut in their middle: a message may quote a value of megabytes, and its beginning
    says where that stands, its end how to mend it.
    """
    return "\n".join(line if len(line) <= LONGEST else f"{line[:HEAD]} … {line[-TAIL:]}" for line in text.split("\n"))


def write_escaped(stream: TextIO) -> None:
    """From now on a stream writes what its encoding lacks as `\\u2016`, as stderr does: a run does not fail at its last
    table because a terminal has another encoding than UTF-8.
    """
    if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
        stream.reconfigure(errors="backslashreplace")


class VisibleFormatter(logging.Formatter):
    """Formats log records so: they quote rows, and logs are read in terminals."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))
