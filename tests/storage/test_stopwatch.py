"""Seconds per phase: each second is one phase's, whatever the order in which phases are taken up again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from embedgrad_cli.storage import stopwatch
from embedgrad_cli.storage.stopwatch import Stopwatch


def test_every_second_belongs_to_one_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    now: Iterator[float] = iter([10.0, 11.0, 13.0, 16.0, 20.0])
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: next(now))
    watch = Stopwatch()
    for phase in ("train", "validate", "train", "test"):
        watch.begin(phase)
    assert watch.seconds == {"train": 1.0 + 3.0, "validate": 2.0, "test": 4.0}
