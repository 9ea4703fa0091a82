"""Settings as a person types them: a text in Hydra's grammar, within the shell's. Nothing heavy is imported."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress

# Without quotes Hydra takes more than these, but not what is not ASCII, and a word for a number where it can be one.
PLAIN = re.compile(r"[A-Za-z0-9_./@%+-]+")
NO_TEXT = ("null", "true", "false")


def typed(key: str, text: object) -> str:
    """`KEY=TEXT` as a word for a shell; the text in quotes within quotes, `'KEY="a, b"'`, where Hydra asks for them."""
    plain = str(text)
    return f"{key}={plain}" if PLAIN.fullmatch(plain) and not _is_other(plain) else typed_in_quotes(key, plain)


def typed_in_quotes(key: str, text: str) -> str:
    """`'KEY="TEXT"'`, which Hydra reads as this text whatever is in it."""
    return shlex.quote(f"{key}={in_quotes(text)}")


def in_quotes(text: str) -> str:
    """`"TEXT"`, as Hydra writes it: for a word that no shell reads."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.double).with_quotes()


def _is_other(text: str) -> bool:
    """Whether Hydra reads a number, a truth value or null."""
    with suppress(ValueError):
        float(text)
        return True
    return text.lower() in NO_TEXT
