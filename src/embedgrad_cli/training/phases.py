"""The phases of a run, by which its time is told."""

from __future__ import annotations

from embedgrad_cli.storage.results_record import Timing
from embedgrad_cli.storage.stopwatch import Stopwatch

PHASES = ("reading", "loading", "encoding", "checking", "answering", "training", "validation", "elsewhere", "grading")
TEST = "test "  # and the arm's name: a phase


def timing_of(stopwatch: Stopwatch) -> Timing:
    """The seconds of every phase so far, 0 for those that there were not; those of the test by arm."""
    seconds = stopwatch.seconds
    of_arms = {name.removeprefix(TEST): seconds.pop(name) for name in list(seconds) if name.startswith(TEST)}
    return Timing(**{**dict.fromkeys(PHASES, 0.0), **seconds}, test=of_arms)
