r"""Answers in LaTeX: `\boxed{\frac{1}{2}}`, "The answer is $x = 3$."."""

from __future__ import annotations

from embedgrad_cli.tasks.graders.base import Grader, announced
from embedgrad_cli.tasks.graders.latex import last_boxed, last_formula, same_answer
from embedgrad_cli.tasks.graders.number import last_number, quantity


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
            return last_formula(said) or quantity(said) or said
        return last_formula(text) or last_number(text)

    def same(self, gold: str, answer: str) -> bool:
        return same_answer(gold, answer)

    def gold(self, target: str) -> str | None:
        return last_boxed(target)  # a solution without a box is a broken row, not one to guess at
