"""A fault that is tried, and what it is compared with."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torture.check import contents, differences, is_traceback
from torture.events import Event, watch
from torture.work import COMMANDS, RUN, Ended, furnish, run


@dataclass(frozen=True)
class Undisturbed:
    """A command that nothing disturbed: what it leaves, prints and takes, and what it does to files, in order."""

    argv: list[str]
    left: dict[str, Any]
    stdout: str
    seconds: float
    events: list[str]


@dataclass(frozen=True)
class Case:
    """One fault. `tried` is given a furnished folder and tells what was wrong: nothing, if the fault was survived."""

    kind: str
    fault: str
    command: str
    name: str
    tried: Callable[[Path], list[str]]
    times: int = 1


@dataclass(frozen=True)
class Outcome:
    """What came of a case."""

    kind: str
    fault: str
    command: str
    name: str
    wrong: list[str]
    times: int = 1  # how often the fault was tried

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Bench:
    """Where cases are run: a folder for each below `base`, and the undisturbed commands, each run when it is needed."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self._undisturbed: dict[str, Undisturbed] = {}

    def undisturbed(self, command: str) -> Undisturbed:
        if command not in self._undisturbed:
            place = furnish(self.base / "undisturbed" / command.replace(" ", "-"), self.base)
            noted = place.with_suffix(".events")

            def note(event: Event) -> None:
                with noted.open("a") as file:
                    file.write(f"{event.kind} {Path(event.path).name}\n")

            ended = run(COMMANDS[command], place, lambda: watch(place, note))
            if ended.code != 0:
                raise RuntimeError(f"{command} fails without a fault: {ended.said}")
            events = noted.read_text().splitlines() if noted.exists() else []
            left = contents(place, RUN)
            self._undisturbed[command] = Undisturbed(COMMANDS[command], left, ended.stdout, ended.seconds, events)
        return self._undisturbed[command]

    def place(self, name: str) -> Path:
        place = self.base / "cases" / name
        shutil.rmtree(place, ignore_errors=True)
        return furnish(place, self.base)

    def ends_as_undisturbed(self, command: str, place: Path, again: Ended) -> list[str]:
        """What is wrong after the same command has been run again, to its end."""
        wanted = self.undisturbed(command)
        is_there = command.startswith("export") and "is not an empty folder" in again.stderr  # it had just been done
        if again.code != 0 and not is_there:
            return [f"the same command again ends with {again.said}"]
        wrong = self.compared(command, place)
        if command == "compare" and again.stdout != wanted.stdout:
            wrong.append("it prints something else")
        return wrong

    def compared(self, command: str, place: Path) -> list[str]:
        """How what is in a folder differs from what the undisturbed command leaves."""
        return differences(contents(place, RUN), self.undisturbed(command).left)

    def run_again(self, command: str, place: Path) -> list[str]:
        return self.ends_as_undisturbed(command, place, run(COMMANDS[command], place))


def is_said(ended: Ended, codes: Iterable[int] = (1, 2)) -> list[str]:
    """What is wrong with the way in which a failure is told: one of these exit codes, words, and no traceback."""
    wrong = []
    if ended.code not in codes:
        wrong.append(f"it ends with {ended.said}")
    if is_traceback(ended.stderr):
        wrong.append(f"a traceback: {ended.stderr[-1500:]}")
    elif ended.code != 0 and not ended.stderr.strip():
        wrong.append("it does not say why")
    return wrong


def try_case(bench: Bench, case: Case) -> Outcome:
    place = bench.place(case.name)
    wrong = case.tried(place)
    if not wrong:
        shutil.rmtree(place, ignore_errors=True)
        for log in place.parent.glob(f"{place.name}.*"):
            log.unlink()
    return Outcome(case.kind, case.fault, case.command, case.name, wrong, case.times)


def spread(number: int, many: int, chance: random.Random) -> list[int]:
    """So many numbers from 1 to `many`: all of them where they are no more, else one at random of each equal part."""
    if number >= many:
        return list(range(1, many + 1))
    return sorted(1 + int((i + chance.random()) * many / number) for i in range(number))
