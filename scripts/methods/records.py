"""What stands in the work folder: a series (model, task, settings), its problems (size, seed, fold), their cells.

WORK/SERIES/series.json
WORK/SERIES/PROBLEM/problem.json
WORK/SERIES/PROBLEM/METHOD/cell.json    when it is finished
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from embedgrad_cli.storage.files import write_json
from embedgrad_cli.storage.record import Json, Record

SERIES, PROBLEM, CELL, TRIAL, TEST = "series.json", "problem.json", "cell.json", "trial.json", "test.json"
VALIDATED = "validated.json"  # the texts that a method chose among, the best first


@dataclass(frozen=True, kw_only=True)
class SeriesRecord(Record):
    """A model and a task under the settings that all methods share. `command` is the last of the `commands`.

    `note`: what the cells do not know of themselves: that they shared their processor, say.
    """

    model: str
    task: str
    kind: str
    seed_prompt: list[str]
    settings: Json
    model_digest: str
    versions: dict[str, str]
    command: str
    commands: list[str] | None = None
    note: str | None = None

    @property
    def all_commands(self) -> list[str]:
        return self.commands or [self.command]

    @property
    def shown_commands(self) -> list[str]:
        """Those that worked on it, in their order, somebody's own folders taken out."""
        return list(dict.fromkeys(" ".join(map(_placeless, shlex.split(one))) for one in self.all_commands))

    def after(self, earlier: SeriesRecord) -> SeriesRecord:
        """The same series, with the commands that worked on it before and the note that it had."""
        mine = self.all_commands
        commands = [*(one for one in earlier.all_commands if one not in mine), *mine]
        return replace(self, commands=commands, note=self.note or earlier.note)

    def kept(self) -> SeriesRecord:
        """As it can be shown to others."""
        return replace(self, command=self.shown_commands[-1], commands=self.shown_commands)


@dataclass(frozen=True, kw_only=True)
class ProblemRecord(Record):
    """Rows of one series: how many of each split, under which seed and fold."""

    seed: int
    fold: int | None
    counts: dict[str, int]
    split_hash: str


@dataclass(frozen=True, kw_only=True)
class Trial(Record):
    """One training: its best validation, at which step, and what it trained.

    Args:
        lr: None where there is no learning rate.
        seconds: that its steps took, without loading and validation.
        peak_bytes: resident memory at the peak of a step, weights and libraries included; None: not known.
    """

    lr: float | None
    accuracy: float
    loss: float
    step: int
    parameters: int
    seconds: float
    peak_bytes: int | None
    weights_before: str
    weights_after: str


@dataclass(frozen=True, kw_only=True)
class TriedText(Record):
    """A text and its validation."""

    text: str
    accuracy: float
    loss: float


@dataclass(frozen=True, kw_only=True)
class TestedRow(Record):
    """An answer to a row of the test."""

    id: str
    output: str
    extracted: str | None
    answer: str
    correct: bool


@dataclass(frozen=True, kw_only=True)
class TestRecord(Record):
    """What an arm answered in the test, and which texts it was chosen among.

    `seconds_before` is what answers took that another arm or an earlier attempt had given.
    """

    answers: list[TestedRow]
    seconds_before: float
    texts: list[TriedText] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class CellRecord(Record):
    """A finished cell: one method on one problem.

    Args:
        variant: what else the method depends on, in a few words.
        rates: the learning rates that were tried; `trials` are their trainings, `chosen` the one that was tested.
        correct: by the id of the test row.
        seconds: everything: loading, all trainings, validation and test.
        texts: those that were tried, if the method chooses among texts; the best is first.
    """

    method: str
    title: str
    variant: str | None
    rates: list[float]
    chosen: Trial | None
    trials: list[Trial]
    correct: dict[str, bool]
    seconds: float
    texts: list[TriedText]
    threads: int

    @property
    def at_end(self) -> bool:
        """Whether the chosen rate is the smallest or the largest of several."""
        return self.chosen is not None and len(self.rates) > 1 and self.chosen.lr in (min(self.rates), max(self.rates))


@dataclass(frozen=True)
class Finished:
    """A finished cell, the problem and the series it belongs to. `place` is its folder in the work folder."""

    series: SeriesRecord
    problem: ProblemRecord
    cell: CellRecord
    place: Path

    @property
    def series_key(self) -> str:
        return self.place.parts[0]


def read_work(folder: Path) -> list[Finished]:
    """All finished cells of a work folder, in the order of their paths.

    Raises:
        UserError: a file is damaged.
    """
    found = []
    for file in sorted(folder.glob(f"*/*/*/{CELL}")):
        problem, series = file.parents[1], file.parents[2]
        records = SeriesRecord.read(series / SERIES), ProblemRecord.read(problem / PROBLEM), CellRecord.read(file)
        found.append(Finished(*records, file.parent.relative_to(folder)))
    return found


def keep_records(finished: Sequence[Finished], folder: Path) -> None:
    """Write the records of finished cells, without prompts and answers, to where `read_work` finds them again."""
    for one in finished:
        cell = folder / one.place
        cell.mkdir(parents=True, exist_ok=True)
        write_json(cell / CELL, one.cell)
        write_json(cell.parent / PROBLEM, one.problem)
        file = cell.parent.parent / SERIES
        series = one.series.after(SeriesRecord.read(file)) if file.exists() else one.series
        write_json(file, series.kept())


def _placeless(word: str) -> str:
    key, equals, value = word.rpartition("=")
    if value.startswith(("/", "~")):
        name = value.rpartition("/")[2]
        value = f"scripts/{name}" if name.endswith(".py") else "FILE.gguf" if name.endswith(".gguf") else "DIR"
    return key + equals + value if re.fullmatch(r"[\w./=,+-]*", value) else shlex.quote(key + equals + value)
