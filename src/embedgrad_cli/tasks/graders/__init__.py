r"""Graders: find the answer in a text, and compare it with the gold answer.

grader = graders.get("last-number")
grader.gold("48 / 2 = 24\n#### 1,224.00")  # "1224"
grade = grader.judge("1224", "The answer is $1,224.")
grade.strict  # Extraction(extracted=None, correct=False): there is no "####"
grade.lenient  # Extraction(extracted="1224", correct=True)

The strict extraction reads the form that the task's own training targets have, and nothing else. The lenient one also
takes an answer in another form. Which of the two counts as correct is `task.extraction`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from embedgrad_cli.errors import ConfigError
from embedgrad_cli.tasks.graders.base import Extraction, Grade, Grader, announced
from embedgrad_cli.tasks.graders.label import Label
from embedgrad_cli.tasks.graders.latex import last_boxed, last_formula, same_answer

__all__ = ["Boxed", "Extraction", "Grade", "Grader", "Label", "LastNumber", "get"]

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
        return next(iter(_numbers(marked)), None)

    def lenient(self, text: str) -> str | None:
        numbers = _numbers(text)
        return self.strict(text) or (numbers[-1] if numbers else None)

    def same(self, gold: str, answer: str) -> bool:
        return answer == (self.lenient(gold) or gold)

    def gold(self, target: str) -> str | None:
        return self.lenient(target)


class Boxed(Grader):
    r"""Strict: the last `\boxed{…}`. Lenient: or else what follows "the answer is", the last formula, the last number.

    Answers are compared after normalisation, and by math-verify ("1/2" is `\frac{1}{2}`).
    """

    def strict(self, text: str) -> str | None:
        return last_boxed(text)

    def lenient(self, text: str) -> str | None:
        if (boxed := last_boxed(text)) is not None:
            return boxed
        if said := announced(text):
            quantity = _QUANTITY.fullmatch(said)  # "17 dollars"
            return last_formula(said) or (_spell(quantity) if quantity else said)
        numbers = _numbers(text)
        return last_formula(text) or (numbers[-1] if numbers else None)

    def same(self, gold: str, answer: str) -> bool:
        return same_answer(gold, answer)

    def gold(self, target: str) -> str | None:
        return last_boxed(target)  # a solution without a box is a broken row, not one to guess at


_GRADERS: dict[str, Callable[[tuple[str, ...]], Grader]] = {
    "last-number": lambda choices: LastNumber(),
    "boxed": lambda choices: Boxed(),
    "label": Label,
}


def get(name: str, choices: Sequence[str] | None = None) -> Grader:
    """The grader of that name. `choices` are the labels that `label` accepts; none are any.

    Raises:
        ConfigError: there is no grader of that name.
    """
    if name not in _GRADERS:
        raise ConfigError([f"task.grader={name} is not a grader. There are: {', '.join(_GRADERS)}."])
    return _make(name, tuple(choices or ()))


@lru_cache(maxsize=256)  # rows may have choices of their own, mostly the same few
def _make(name: str, choices: tuple[str, ...]) -> Grader:
    return _GRADERS[name](choices)


def _numbers(text: str) -> list[str]:
    """Every number in the text, spelled in one way: "-1,224.50" as "-1224.5"."""
    return [_spell(match) for match in _NUMBER.finditer(text.replace("−", "-"))]


def _spell(match: re.Match[str]) -> str:
    whole = match["whole"].replace(",", "").lstrip("0") or "0"
    fraction = (match["fraction"] or "").rstrip("0")
    size = f"{whole}.{fraction}" if fraction else whole
    return size if size == "0" or not match["sign"] else f"-{size}"
