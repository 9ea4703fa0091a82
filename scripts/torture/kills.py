"""SIGKILL, at what a command does to files and at any moment; then the same command again."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from torture.cases import Bench, Case, spread
from torture.check import half_written
from torture.events import kill_at, watch
from torture.work import COMMANDS, start

KIND = "kills"
# How often each is killed, among all: those that go on where they stopped more often than those that begin again.
SHARES = {"optimize": 5, "verified": 3, "evaluate": 3, "multirun": 2, "report": 0.5, "compare": 0.5} | {
    name: 1 for name in COMMANDS if name.startswith("export")
}


def cases(bench: Bench, count: int, seed: int) -> Iterator[Case]:
    """`count` kills, two thirds of them at a write or another change of a file, the others at random moments."""
    chance = random.Random(f"{KIND} {seed}")
    for command, share in SHARES.items():
        number = max(2, round(count * share / sum(SHARES.values())))
        events = bench.undisturbed(command).events
        at_events = min(len(events), round(number * 2 / 3))
        for event in spread(at_events, len(events), chance):
            what = events[event - 1].partition(" ")[0]
            name = f"kill-{command.replace(' ', '-')}-at-{event}"
            yield Case(KIND, f"at {what}", command, name, partial(_at_event, bench, command, event))
        for i in range(number - at_events):
            moments = [chance.random() for _ in range(chance.choice((1, 1, 2, 3)))]
            name = f"kill-{command.replace(' ', '-')}-moment-{i}"
            yield Case(KIND, "at a random moment", command, name, partial(_at_moments, bench, command, moments))


def _at_event(bench: Bench, command: str, number: int, place: Path) -> list[str]:
    ended = start(COMMANDS[command], place, lambda: watch(place, kill_at(number))).wait()
    wrong = [] if ended.code == -signal.SIGKILL else [f"it was not killed at event {number}: {ended.said}"]
    return wrong + half_written(place) + bench.run_again(command, place)


def _at_moments(bench: Bench, command: str, moments: list[float], place: Path) -> list[str]:
    """Killed once for each moment, a share of the time that the undisturbed command takes; each run goes on."""
    wrong = []
    for moment in moments:
        process = start(COMMANDS[command], place)
        time.sleep(moment * bench.undisturbed(command).seconds)
        process.send(signal.SIGKILL)
        process.wait()
        wrong += half_written(place)
    return wrong + bench.run_again(command, place)
