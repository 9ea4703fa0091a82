"""What prompts answered to training rows, how it was graded and which answers became targets: `targets.jsonl`.

A line is one row in one round. The file grows by whole rounds; what a round has so far is in `targets.partial.jsonl`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embedgrad_cli.storage.files import append_to_disk, json_line, read_appended, write_json_lines
from embedgrad_cli.storage.record import Record
from embedgrad_cli.storage.sample_records import Ending


@dataclass(frozen=True, kw_only=True)
class TrainingAnswer(Record):
    """One answer to a training row.

    Args:
        output: the text that was graded.
        ids: its tokens, without one that ended the turn.
        ending: how it ended.
        extracted: the answer found in it by `task.extraction`; None: invalid.
        correct: whether that is the row's.
        kept: whether it is trained on.
    """

    output: str
    ids: list[int]
    ending: Ending
    extracted: str | None
    correct: bool
    kept: bool


@dataclass(frozen=True, kw_only=True)
class AnsweredRow(Record):
    """All answers to one training row in a round, which are counted from 1; `prompt_hash` is of what the model read."""

    round: int
    id: str
    prompt_hash: str
    answers: list[TrainingAnswer]


class TrainingAnswers:
    """The answers of a run, round by round. Neither file need exist.

    Args:
        whole: holds finished rounds, each written whole or not at all.
        partial: finished batches of the round that is not finished, appended and flushed to disk.
    """

    def __init__(self, whole: Path, partial: Path) -> None:
        self.whole, self.partial = whole, partial

    def forget(self) -> None:
        self.whole.unlink(missing_ok=True)
        self.partial.unlink(missing_ok=True)

    def finished(self) -> list[AnsweredRow]:
        """The rows of all finished rounds.

        Raises:
            UserError: the file is damaged.
        """
        return AnsweredRow.read_lines(self.whole) if self.whole.exists() else []

    def unfinished(self, number: int) -> list[AnsweredRow]:
        """What the round has so far. A line that a killed run left half-written is cut off."""
        if not self.partial.exists():
            return []
        rows = read_appended(self.partial, lambda line: AnsweredRow.parse(line, str(self.partial)))
        return [row for row in rows if row.round == number]

    def add(self, rows: Sequence[AnsweredRow]) -> None:
        """Keep a finished batch."""
        append_to_disk(self.partial, "".join(map(json_line, rows)))

    def finish(self, number: int, rows: Sequence[AnsweredRow]) -> None:
        """Keep a finished round, after those before it."""
        write_json_lines(self.whole, [*(row for row in self.finished() if row.round < number), *rows])
        self.partial.unlink(missing_ok=True)
