"""What every grader does: find the answer in a text, strictly and leniently, and compare each with the gold answer.

All graders find it in one way: thoughts are cut, then come the form of the task's targets, the places where a text says
what its answer is (`places.py`), and last what the text leaves no doubt about.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from embedgrad_cli.guards.limits import TookTooLong, at_most
from embedgrad_cli.tasks.graders.places import places, without_thoughts

# For reading one output, where an endless row of numbers takes the square of its length, and for one comparison; the
# usual ones take milliseconds.
COMPUTING_SECONDS = 5.0


class Undecided(Exception):
    """A comparison of two answers was given up: it took too much time or memory."""


@dataclass(frozen=True)
class Extraction:
    """The answer found in an output (None: there is none, it is invalid), and whether it is the gold answer.

    An `undecided` answer could not be compared; it does not count as right.
    """

    extracted: str | None
    correct: bool
    undecided: bool = False


@dataclass(frozen=True)
class Grade:
    """Both extractions of one output."""

    strict: Extraction
    lenient: Extraction


class Grader(ABC):
    """Finds an answer in a text, in two ways, and compares it with the gold answer."""

    @abstractmethod
    def in_form(self, text: str) -> str | None:
        """The answer in the form that the task's targets have; None if there is none. The text has no thoughts."""

    @abstractmethod
    def read(self, place: str) -> str | None:
        """The answer in a place that holds an answer: a box, or what "the answer is"; None if it is no such answer."""

    @abstractmethod
    def otherwise(self, text: str) -> str | None:
        """The answer of a text that says in no place what it is; None if there is any doubt."""

    @abstractmethod
    def same(self, gold: str, answer: str) -> bool:
        """Whether an extracted answer is the gold answer.

        Raises:
            Undecided: that would take too long, or too much memory.
        """

    def strict(self, text: str) -> str | None:
        """The answer in the form that the task's targets have; None if there is none."""
        return self.in_form(without_thoughts(text))

    def lenient(self, text: str) -> str | None:
        """The answer in any form that leaves no doubt; None if there is none."""
        text = without_thoughts(text)
        ways = (self.in_form, self.said, self.otherwise)
        return next((answer for way in ways if (answer := way(text)) is not None), None)

    def said(self, text: str) -> str | None:
        """The answer in the surest place that holds one; None if there is none. The text has no thoughts."""
        return next(filter(None, map(self.read, places(text))), None)

    def gold(self, target: str) -> str | None:
        """The answer in a row's own target; None if there is none."""
        return self.strict(target)

    def judge(self, gold: str, output: str) -> Grade:
        """Extract both ways and compare each with the gold answer. An output that cannot be read in time is undecided.

        Raises:
            EmbedgradError: what compares answers cannot be started (`boxed`).
        """
        try:
            with at_most(COMPUTING_SECONDS):
                strict, lenient = self.strict(output), self.lenient(output)
        except TookTooLong:
            nothing = Extraction(None, correct=False, undecided=True)
            return Grade(nothing, nothing)
        found = {answer: self._compare(gold, answer) for answer in {strict, lenient}}
        return Grade(found[strict], found[lenient])

    def _compare(self, gold: str, answer: str | None) -> Extraction:
        try:
            return Extraction(answer, answer is not None and self.same(gold, answer))
        except Undecided:
            return Extraction(answer, correct=False, undecided=True)
