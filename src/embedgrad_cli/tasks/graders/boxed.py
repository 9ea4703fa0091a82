r"""Answers in LaTeX: `\boxed{\frac{1}{2}}`, "The answer is $x = 3$."."""

from __future__ import annotations

import re

from embedgrad_cli.tasks.graders.base import Grader
from embedgrad_cli.tasks.graders.latex import formulas, same_answer
from embedgrad_cli.tasks.graders.number import last_number
from embedgrad_cli.tasks.graders.places import boxes
from embedgrad_cli.tasks.graders.quantities import quantity

_REASON = re.compile(r"[\s,;]*\b(?:which|because|since|where|I\s+hope)\b.*", re.DOTALL)


class Boxed(Grader):
    r"""Strict: the last `\boxed{…}`. Lenient: or else what the text announces, its last formula, its last number.

    Answers are compared as exact numbers, after normalisation, and by math-verify ("x+1" is `1+x`).
    """

    def in_form(self, text: str) -> str | None:
        return next(boxes(text), None)

    def read(self, place: str) -> str | None:
        first, every = formulas(place)
        return first or quantity(place) or (every[-1] if every else None) or _REASON.sub("", place).strip(" *_\"'")

    def otherwise(self, text: str) -> str | None:
        _, every = formulas(text)
        return every[-1] if every else last_number(text)

    def same(self, gold: str, answer: str) -> bool:
        return same_answer(gold, answer)
