r"""A number and what it counts: "17 dollars", "10 m/s", `15\mbox{ cm}^2`, "5, which is prime"."""

from __future__ import annotations

import re

from embedgrad_cli.tasks.graders.numerals import find, prepare

_NO_UNITS = (
    r"(?:or|and|to|mod|plus|minus|times|over|divided|by|squared|cubed|factorial|choose|sqrt|pi|if|is|of|more|less"
    r"|not)\b"
)
_LETTER = r"[mgsh](?![A-Za-z])"  # a unit behind a blank or before a slash; otherwise a variable
_SYMBOLS = (
    r"(?:[kcmn]m|[km]g|m[lL]|ft|in|yd|mi|lbs?|oz|mph|kph|k?Hz|hrs?|mins?|secs?|ms|[kM][JNWV]|kWh|USD|EUR|GBP|cents?)"
    r"(?![A-Za-z])"
)
_POWER = r"(?:\^?\{?-?[123]\}?)?"
_BELOW = rf"\s*/\s*(?:{_SYMBOLS}|{_LETTER}|min|hour|day|second|minute){_POWER}"
_MARKED = r"\\(?:text|textrm|textbf|mathrm|mbox|operatorname)\s*\{\s*[A-Za-z°][^{}]*\}(?:\^\{?-?[123]\}?)?"
_BLANK = r"(?:\s|\\[,;:! ]|~|\\q?quad)"
UNIT = (
    rf"(?:{_BLANK}*{_MARKED}(?:\s*[/·]\s*{_MARKED})*"
    rf"|{_BLANK}*{_SYMBOLS}{_POWER}(?:{_BELOW})?"
    rf"|{_BLANK}+{_LETTER}{_POWER}(?:{_BELOW})?|m{_BELOW}"
    rf"|(?:{_BLANK}+(?!{_NO_UNITS})[A-Za-z]{{2,}})+(?:\s*/\s*[A-Za-z]{{2,}})?)"
)
_BEFORE = re.compile(r"[\s*_\"'“”(]*(?:(?:USD|EUR|GBP)\s+)?")
_CLAUSE = (
    r"(?:[\s,;:(—-]*\b(?:which|because|since|as|so|where|making|meaning|given|after|rather|not|therefore|in|for|per|at|on"
    r"|during|each|every|from|or\s+so|out\s+of|and\s+(?:not|the|that|it|this)|of\s+(?:an?|the|all|each|his|her|their))\b"
    r"|\s*[,;:(—]\s*(?!mod\b)[A-Za-z]{2,}|\s+—\s).*"
)
_BEHIND = re.compile(rf"\s*\\?%?(?:{UNIT})?[\s*_\"'”)!?.]*(?:{_CLAUSE})?", re.DOTALL)


def quantity(text: str) -> str | None:
    """The number of a text that is a number, its unit and perhaps a clause about it; None if it is anything else."""
    text = prepare(text)
    number = next(find(text), None)
    if number is None or number.value is None or not _BEFORE.fullmatch(text, 0, number.start):
        return None
    return number.text if _BEHIND.fullmatch(text, number.end) else None
