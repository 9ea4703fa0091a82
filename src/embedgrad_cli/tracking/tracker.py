"""What a tracker is asked to do, and what it is given. A module per tracker does it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from embedgrad_cli.config.schema import TrackerConfig

NOT_PLAIN = re.compile(r"[^A-Za-z0-9_./-]")
LONGEST_NAME = 120


@dataclass(frozen=True)
class Point:
    """Values at a step, by their names: `train/loss`, `validation/accuracy`, …

    Args: order: rises from point to point of a run, also where a step has two.
    """

    step: int
    values: dict[str, float]
    order: int


@dataclass(frozen=True)
class Table:
    """A row per arm or per comparison. An empty cell is None."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | None, ...], ...]


@dataclass(frozen=True)
class TrackedRun:
    """What a run is before it begins.

    Args:
        directory: its run directory.
        settings: those of `tracker`.
        name: what it is called.
        group: the sweep's name; None: it is of no sweep.
        run_id: the tracker's, of a run that goes on there; None: it is a new one.
        order: of the last point that the tracker has; below 0: it has none.
        parameters: the settings as dotted keys with their values as text.
    """

    directory: Path
    settings: TrackerConfig
    name: str
    group: str | None
    run_id: str | None
    order: int
    parameters: dict[str, str]


@dataclass(frozen=True)
class Outcome:
    """What a run came to: all of the last two are empty where it did not come to its end.

    Args:
        how: finished; stopped, and the same command goes on; or failed.
        values: the figures of the test by their names.
        tables: arms with their intervals, and comparisons with their tests.
        verdict: the first comparison in a sentence.
        files: the artifact, the results and the report, those that are there.
    """

    how: str
    values: dict[str, float] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    verdict: str = ""
    files: Sequence[Path] = ()


class Tracker(Protocol):
    """One run in a tracker. Whatever it raises ends the tracking and nothing else."""

    def begin(self, run: TrackedRun) -> tuple[str, str]:
        """Begin a run, or go on with the one of `run.run_id`. Returns: its id, and where a person finds it."""

    def log(self, points: Sequence[Point]) -> None:
        """Add points to the curves."""

    def end(self, outcome: Outcome) -> None:
        """Add the figures, tables and files, say how the run ended, and wait until all of it is there."""


def identifier() -> str:
    """An id for a new run, where the tracker leaves it to us."""
    return uuid.uuid4().hex[:8]


def plain_name(text: str) -> str:
    """A name with only what every tracker and every file system takes: arms are called as their texts are."""
    return NOT_PLAIN.sub("_", text)[:LONGEST_NAME]
