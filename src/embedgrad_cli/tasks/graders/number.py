"""Numbers in free text: "#### 1,224.00", "It costs $1,224."; every number spelled in one way."""

from __future__ import annotations

import re

from embedgrad_cli.tasks.graders.base import Grader

# Thousands only in groups of three: "1, 2" and "3,4" are two numbers. A minus is a sign only where nothing is there
# to subtract from: not in "16-3", "16 - 3" or "(a)-3".
_NUMBER = re.compile(
    r"(?P<sign>(?<![\w)\]}%])-\$?|\$-)?"
    r"(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+|(?=\.[0-9]))(?:\.(?P<fraction>[0-9]+))?"
)
_QUANTITY = re.compile(rf"\W*?({_NUMBER.pattern})(?:\s*[A-Za-z]{{2,}})*\W*")
_MARKER = "####"


class LastNumber(Grader):
    """Strict: the number after `####`, as GSM8K marks it. Lenient: or else the last number in the text.

    Numbers are compared without thousands commas, currency, units, and zeros that change nothing.
    """

    def strict(self, text: str) -> str | None:
        marked = text.partition(_MARKER)[2].lstrip().partition("\n")[0]
        return next(iter(numbers(marked)), None)

    def lenient(self, text: str) -> str | None:
        return self.strict(text) or last_number(text)

    def same(self, gold: str, answer: str) -> bool:
        return answer == (self.lenient(gold) or gold)

    def gold(self, target: str) -> str | None:
        return self.lenient(target)


def numbers(text: str) -> list[str]:
    """Every number in the text, spelled in one way: "-1,224.50" as "-1224.5"."""
    return [_spell(match) for match in _NUMBER.finditer(text.replace("−", "-"))]


def last_number(text: str) -> str | None:
    """The last number in the text, spelled as `numbers` spells it; None if there is none."""
    return next(reversed(numbers(text)), None)


def quantity(text: str) -> str | None:
    """The number of a text that is a number and its unit, "17 dollars"; None if it is anything else."""
    match = _QUANTITY.fullmatch(text)
    return _spell(match) if match else None


def _spell(match: re.Match[str]) -> str:
    whole = match["whole"].replace(",", "").lstrip("0") or "0"
    fraction = (match["fraction"] or "").rstrip("0")
    size = f"{whole}.{fraction}" if fraction else whole
    return size if size == "0" or not match["sign"] else f"-{size}"
