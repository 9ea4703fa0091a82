"""Two processes in one folder: one is held at a moment of its work while the other is started."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from torture.cases import Bench, Case, is_said, spread
from torture.check import half_written
from torture.events import Event, watch
from torture.work import COMMANDS, Process, run, start

KIND = "two_processes"
TRIED = ("optimize", "evaluate", "verified", "export model", "export peft", "multirun")


def cases(bench: Bench, count: int, seed: int) -> Iterator[Case]:
    chance = random.Random(f"{KIND} {seed}")
    for command in TRIED:
        events, dashed = bench.undisturbed(command).events, command.replace(" ", "-")
        for event in spread(max(1, count // 40), len(events), chance):
            yield Case(
                *(KIND, "a second while the first is held", command, f"two-{dashed}-held-at-{event}"),
                partial(_held, bench, command, event),
            )
            yield Case(
                *(KIND, "a second after the first was killed", command, f"two-{dashed}-killed-at-{event}"),
                partial(_crashed, bench, command, event),
            )
        yield Case(
            KIND, "both at once", command, f"two-{dashed}-at-once", partial(_at_once, bench, command, chance.random())
        )


def _start_held(command: str, number: int, place: Path) -> Process:
    """Returns: a process that stands still at an event."""

    def hold(event: Event) -> None:
        if event.number == number:
            os.kill(os.getpid(), signal.SIGSTOP)

    process = start(COMMANDS[command], place, lambda: watch(place, hold))
    while not _stands(process.pid):
        time.sleep(0.01)
    return process


def _stands(pid: int) -> bool:
    """Whether it is stopped, or has ended."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "TZ"


def _held(bench: Bench, command: str, number: int, place: Path) -> list[str]:
    """The second is refused and says by whom; or, where the first has no lock yet, or no more, it does the work."""
    first = _start_held(command, number, place)
    second = run(COMMANDS[command], place)
    wrong = is_said(second, (0, 1, 2)) + half_written(place)
    # The first may be held in the very moment in which it writes down who it is.
    names = (f"process {first.pid} ", "another process, which has not said", "not an empty folder")
    if second.code != 0 and not any(name in second.stderr for name in names):
        wrong.append(f"the second does not name the first: {second.said}")
    first.send(signal.SIGCONT)
    ended = first.wait()
    wrong += is_said(ended, (0, 1, 2))
    if 0 not in (ended.code, second.code):
        wrong.append(f"neither has done the work: {ended.said}; {second.said}")
    return wrong + half_written(place) + _left(bench, command, place)


def _crashed(bench: Bench, command: str, number: int, place: Path) -> list[str]:
    first = _start_held(command, number, place)
    first.send(signal.SIGKILL)
    first.wait()
    return bench.run_again(command, place)


def _at_once(bench: Bench, command: str, later: float, place: Path) -> list[str]:
    first = start(COMMANDS[command], place)
    time.sleep(0.3 * later)
    second = start(COMMANDS[command], place)
    both = [first.wait(), second.wait()]
    wrong = [one for ended in both for one in is_said(ended, (0, 1, 2))]
    if (
        all(ended.code != 0 for ended in both) and command != "multirun"
    ):  # where each may do the job that the other lacks
        wrong.append(f"neither has done the work: {both[0].said}; {both[1].said}")
    return wrong + half_written(place) + _left(bench, command, place)


def _left(bench: Bench, command: str, place: Path) -> list[str]:
    """What is wrong with what both have left."""
    if command.startswith("export"):  # to run it again would be refused: the folder is there
        return bench.compared(command, place)
    return bench.run_again(command, place)
