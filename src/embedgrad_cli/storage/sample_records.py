"""A line of `samples.jsonl`: one answer of an arm to a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from embedgrad_cli.storage.record import Json, Record

Ending = Literal["end_of_turn", "stop", "limit"]


@dataclass(frozen=True, kw_only=True)
class FoundAnswer(Record):
    """What an extraction found in an output (None: nothing, it is invalid), and whether it is the gold answer.

    `undecided`: the two could not be compared.
    """

    extracted: str | None
    correct: bool
    undecided: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Sample(Record):
    """A line of `samples.jsonl`: one answer of an arm to a row. `correct` and what is around it wait for the grader."""

    id: str
    row_hash: str
    arm: str
    sample: int
    prompt_hash: str
    query: str
    answer: str
    output: str
    extracted: str | None = None
    correct: bool | None = None
    strict: FoundAnswer | None = None
    lenient: FoundAnswer | None = None
    tokens: int
    seconds: float
    scores: dict[str, float] | None = None
    choice_tokens: dict[str, int] | None = None
    with_end: bool | None = None
    ending: Ending | None = None

    def to_json(self) -> Json:
        line = super().to_json()
        return line if self.correct is None else {**line, "extracted": self.extracted}  # of an invalid answer: null
