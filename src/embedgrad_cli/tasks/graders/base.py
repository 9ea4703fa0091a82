"""What every grader does: find the answer in a text, strictly and leniently, and compare each with the gold answer."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

# What follows, to the end of the sentence, is an answer that the text announces.
_ANNOUNCED = re.compile(r"\banswer(?:\s+(?:is|was|(?:would|must|should)\s+be)\b|\W{0,2}[:=])[ \t:*]*", re.IGNORECASE)
_SENTENCE = re.compile(r".+?(?=\.(?:\s|$)|$)", re.MULTILINE)


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
    def strict(self, text: str) -> str | None:
        """The answer in the form that the task's targets have; None if there is none."""

    @abstractmethod
    def lenient(self, text: str) -> str | None:
        """The answer in any form that leaves no doubt; None if there is none."""

    @abstractmethod
    def same(self, gold: str, answer: str) -> bool:
        """Whether an extracted answer is the gold answer.

        Raises:
            Undecided: that would take too long, or too much memory.
        """

    @abstractmethod
    def gold(self, target: str) -> str | None:
        """The answer in a row's own target; None if there is none."""

    def judge(self, gold: str, output: str) -> Grade:
        """Extract both ways and compare each with the gold answer.

        Raises:
            EmbedgradError: what compares answers cannot be started (`boxed`).
        """
        strict, lenient = self.strict(output), self.lenient(output)
        found = {answer: self._compare(gold, answer) for answer in {strict, lenient}}
        return Grade(found[strict], found[lenient])

    def _compare(self, gold: str, answer: str | None) -> Extraction:
        try:
            return Extraction(answer, answer is not None and self.same(gold, answer))
        except Undecided:
            return Extraction(answer, correct=False, undecided=True)


def announced(text: str) -> str | None:
    """The rest of the sentence after the last "the answer is" or "Answer:"; None if there is none."""
    rests = [_SENTENCE.match(text, match.end()) for match in _ANNOUNCED.finditer(text)]
    found = [rest.group().strip() for rest in rests if rest]
    return found[-1] if found else None
