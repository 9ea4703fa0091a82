"""Graders: find the answer in a text, and compare it with the gold answer.

grader = graders.get("last-number")
grader.extract("48 / 2 = 24\n#### 1,224.00")  # "1224"
grader.grade("1224", "The answer is $1,224.")  # True; False if wrong, None if there is no answer in it
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from embedgrad_cli.errors import ConfigError
from embedgrad_cli.tasks.latex import last_boxed, same_answer

# Thousands only in groups of three: "1, 2" and "3,4" are two numbers. A minus is a sign only where nothing is there
# to subtract from: not in "16-3", "16 - 3" or "(a)-3".
_NUMBER = re.compile(
    r"(?P<sign>(?<![\w)\]}%])-\$?|\$-)?"
    r"(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+|(?=\.[0-9]))(?:\.(?P<fraction>[0-9]+))?"
)
_MARKER = "####"
_PUNCTUATION = re.compile(r"[^\w\s]|_")


@dataclass(frozen=True)
class Extraction:
    """What one way of looking found in an output (None: no answer), and whether it is the gold answer."""

    extracted: str | None
    correct: bool


@dataclass(frozen=True)
class Grade:
    """An output under the strict extraction and the lenient one."""

    strict: Extraction
    lenient: Extraction


class Grader(Protocol):
    """Finds an answer in a text and compares it with the gold answer."""

    def judge(self, gold: str, output: str) -> Grade:
        """The output's grade under both extractions."""
        ...

    def extract(self, text: str) -> str | None:
        """The answer in the text; None if there is none."""
        ...

    def grade(self, gold: str, output: str) -> bool | None:
        """Whether the output's answer is the gold answer; None if the output holds no answer."""
        ...


class _OneExtraction:
    """Graders that have one way to look only."""

    def judge(self: Grader, gold: str, output: str) -> Grade:
        both = Extraction(self.extract(output), bool(self.grade(gold, output)))
        return Grade(both, both)


class LastNumber(_OneExtraction):
    """The number after `####`, as GSM8K marks it, or else the last number in the text.

    Numbers are compared without thousands commas, currency, units, and zeros that change nothing.
    """

    def extract(self, text: str) -> str | None:
        text = text.replace("−", "-")
        marked = text.partition(_MARKER)[2].lstrip().partition("\n")[0]
        numbers = _numbers(marked)[:1] or _numbers(text)
        return numbers[-1] if numbers else None

    def grade(self, gold: str, output: str) -> bool | None:
        answer = self.extract(output)
        return None if answer is None else answer == (self.extract(gold) or gold)


class Boxed(_OneExtraction):
    r"""The last `\boxed{…}`; equal after normalisation, or by math-verify ("1/2" is `\frac{1}{2}`)."""

    def extract(self, text: str) -> str | None:
        return last_boxed(text)

    def grade(self, gold: str, output: str) -> bool | None:
        answer = self.extract(output)
        return None if answer is None else same_answer(gold, answer)


class Label(_OneExtraction):
    """The first line, whatever its case and punctuation; with choices, only one of them is an answer."""

    def __init__(self, choices: Sequence[str] | None = None) -> None:
        self.names = {_plain(choice): choice for choice in choices} if choices else None

    def extract(self, text: str) -> str | None:
        line = _plain(text.strip().partition("\n")[0])
        if self.names is None:
            return line or None
        return self.names.get(line)

    def grade(self, gold: str, output: str) -> bool | None:
        answer = self.extract(output)
        return None if answer is None else _plain(answer) == _plain(gold)


_GRADERS: dict[str, Callable[[Sequence[str] | None], Grader]] = {
    "last-number": lambda choices: LastNumber(),
    "boxed": lambda choices: Boxed(),
    "label": Label,
}


def get(name: str, choices: Sequence[str] | None = None) -> Grader:
    """The grader of that name. `choices` are the labels that `label` accepts; None accepts any.

    Raises:
        ConfigError: there is no grader of that name.
    """
    if name not in _GRADERS:
        raise ConfigError([f"task.grader={name} is not a grader. There are: {', '.join(_GRADERS)}."])
    return _GRADERS[name](choices)


def _numbers(text: str) -> list[str]:
    """Every number in the text, spelled in one way: "-1,224.50" as "-1224.5"."""
    return [_spell(match) for match in _NUMBER.finditer(text)]


def _spell(match: re.Match[str]) -> str:
    whole = match["whole"].replace(",", "").lstrip("0") or "0"
    fraction = (match["fraction"] or "").rstrip("0")
    size = f"{whole}.{fraction}" if fraction else whole
    return size if size == "0" or not match["sign"] else f"-{size}"


def _plain(label: str) -> str:
    """Without case, punctuation and extra blanks; a label of punctuation alone stays as it is."""
    bare = " ".join(_PUNCTUATION.sub(" ", label).casefold().split())
    return bare or label.strip()
