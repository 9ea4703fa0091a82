"""How long something will still take, by the speed of this process; and when a minute has passed."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]


class Pace:
    """Counts what is done, of so many, and how long the rest will take.

    What an earlier process did, or what is known already, counts as done and not as fast.

    Args:
        total: how many there are.
        done: how many of them an earlier process did.
        starts: the time runs from now on; otherwise from the first `update`, where what came before was something else.
    """

    def __init__(self, total: int, done: int = 0, *, starts: bool = True, clock: Clock = time.monotonic) -> None:
        self.total, self.done, self._clock = total, done, clock
        self._since = clock() if starts else None
        self._own = 0  # done in the time that runs
        self._left: float | None = None  # seconds, as of `_at`
        self._at = 0.0

    def update(self, done: int, known: int = 0) -> None:
        """So many are done, of which so many more than before took no time."""
        now, own = self._clock(), done - self.done - known
        self.done = done
        if self._since is None:
            self._since = now
            return
        self._own += own
        if self._own:
            self._left, self._at = (now - self._since) / self._own * (self.total - done), now

    @property
    def left(self) -> float | None:
        """Seconds, which count down between two updates; None: nothing is known yet."""
        return None if self._left is None else max(self._left - (self._clock() - self._at), 0.0)

    def __str__(self) -> str:
        return "" if self.left is None or self.done >= self.total else f"{duration(self.left)} left"


class Minutes:
    """Says once a minute that a minute has passed; the first time at once, if `at_once`."""

    LENGTH = 60.0

    def __init__(self, at_once: bool = False, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._last = -self.LENGTH if at_once else clock()
        self._is_first = at_once

    @property
    def is_due(self) -> bool:
        now = self._clock()
        if not self._is_first and now - self._last < self.LENGTH:
            return False
        self._last, self._is_first = now, False
        return True


def duration(seconds: float) -> str:
    """In two units at most: 0.4 s, 12 s, 2 min 3 s, 1 h 5 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
