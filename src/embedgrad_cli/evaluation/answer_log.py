"""What was answered so far, kept in a file so that a killed run goes on where it stopped. Nothing heavy is imported."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from embedgrad_cli.storage.files import append_to_disk, read_appended
from embedgrad_cli.storage.sample_records import Ending

if TYPE_CHECKING:
    from embedgrad_cli.parallel.ranks import Ranks


class Progress(Protocol):
    """Is told how many more rows are done, and whether their answers were known before."""

    def __call__(self, rows: int, is_known: bool = False) -> None: ...


def unseen(rows: int, is_known: bool = False) -> None:
    """The `Progress` that nobody watches."""


@dataclass(frozen=True)
class Answer:
    """One answer to one row.

    Args:
        id: the row's.
        prompt_hash: of what the model read (`Arm.prompt_hashes`).
        sample: the number of this answer among those to the row, from 0.
        output: the text, without white space around it, or the best choice (`task.score`).
        tokens: generated, those of a stop string included; 0 where choices are scored.
        seconds: this answer's share of the time its batch took.
        scores: log-likelihood of every choice, the sum over its tokens (kind: choice).
        choice_tokens: how many these tokens are; None in files of earlier versions.
        with_end: whether the end of the turn is among them.
        ending: how a generated answer ended.
    """

    id: str
    prompt_hash: str
    sample: int
    output: str
    tokens: int
    seconds: float
    scores: dict[str, float] | None = None
    choice_tokens: dict[str, int] | None = None
    with_end: bool | None = None
    ending: Ending | None = None


class AnswerLog:
    """All answers so far, by row and prompt hash. Arms that render a row alike share its answers.

    Args:
        path: finished batches are appended here and flushed to disk; what an earlier run left is read. None keeps
            them in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._answers: dict[tuple[str, str], list[Answer]] = {}
        if path is not None and path.exists():
            read_appended(path, self._read)

    @classmethod
    def shared(cls, path: Path, ranks: Ranks) -> AnswerLog:
        """That of several ranks: the first one reads and writes the file, and all of them know what was in it."""
        log = cls(path if ranks.is_first else None)
        for of_row in from_all(ranks, lambda: list(log._answers.values())):
            log._answers[of_row[0].id, of_row[0].prompt_hash] = of_row
        return log

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._answers

    def __getitem__(self, key: tuple[str, str]) -> list[Answer]:
        return self._answers[key]

    def add(self, batch: Sequence[Sequence[Answer]]) -> None:
        """Keep a finished batch: the answers to each of its rows."""
        for answers in batch:
            self._answers[answers[0].id, answers[0].prompt_hash] = list(answers)
        if self.path is not None:
            lines = (json.dumps([asdict(answer) for answer in answers], ensure_ascii=False) + "\n" for answers in batch)
            append_to_disk(self.path, "".join(lines))

    def _read(self, line: str) -> None:
        """Take the answers to a row, which stand on one line."""
        answers = [Answer(**fields) for fields in json.loads(line)]
        self._answers[answers[0].id, answers[0].prompt_hash] = answers


def from_all(ranks: Ranks, work: Callable[[], list[list[Answer]]]) -> list[list[Answer]]:
    """The answers of all ranks, those of the first one first."""
    parts = ranks.gather(lambda: [[asdict(answer) for answer in of_row] for of_row in work()])
    return [[Answer(**fields) for fields in of_row] for part in parts for of_row in part]
