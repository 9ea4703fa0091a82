"""Where the time of a command goes: seconds per phase."""

from __future__ import annotations

import time
from collections import defaultdict


class Stopwatch:
    """One phase runs at a time, and what is done between two `begin` belongs to the first."""

    def __init__(self) -> None:
        self._phase: str | None = None
        self._since = 0.0
        self._seconds = defaultdict[str, float](float)

    def begin(self, phase: str) -> None:
        """End the phase that runs and begin another, or go on with it if it was begun before."""
        self._settle()
        self._phase = phase

    @property
    def seconds(self) -> dict[str, float]:
        """Of every phase so far, in the order in which they first began, to a thousandth."""
        self._settle()
        return {phase: round(seconds, 3) for phase, seconds in self._seconds.items()}

    def _settle(self) -> None:
        now = time.perf_counter()
        if self._phase is not None:
            self._seconds[self._phase] += now - self._since
        self._since = now
