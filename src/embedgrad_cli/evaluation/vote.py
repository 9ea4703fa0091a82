"""Which of several answers to a question counts. Nothing heavy is imported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol, TypeVar


class Extracted(Protocol):
    """An answer in which something was found, or nothing."""

    @property
    def extracted(self) -> str | None: ...


Voter = TypeVar("Voter", bound=Extracted)


def majority(outcomes: Sequence[Voter]) -> Voter:
    """The first outcome with the answer that most samples gave; of equally frequent answers, the one given first.

    Invalid answers have no vote. Of one outcome, it is that outcome.
    """
    votes = Counter(outcome.extracted for outcome in outcomes if outcome.extracted is not None)
    if not votes:
        return outcomes[0]
    winner = max(votes, key=votes.__getitem__)
    return next(outcome for outcome in outcomes if outcome.extracted == winner)
