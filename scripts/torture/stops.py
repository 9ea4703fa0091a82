"""Signals that ask a command to stop, and a terminal that is closed, in every phase; then the same command again."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from torture.cases import Bench, Case, is_said
from torture.check import half_written
from torture.work import COMMANDS, start

KIND = "stops"
SECONDS = 10.0  # within which a command has to have ended
INTERRUPTED = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CLOSED = "closed terminal"
MARK = "phase.reached"


def cases(bench: Bench, count: int, seed: int) -> Iterator[Case]:
    """Every phase of an optimisation with every signal, and the other commands at random moments."""
    chance = random.Random(f"{KIND} {seed}")
    phases = phases_of(bench, "optimize")
    for number in range(len(phases)):
        for way in (*SIGNALS, CLOSED):
            fault = f"{_name(way)} in a phase"
            name = f"stop-optimize-{_name(way).replace(' ', '-')}-{number}-{phases[number].replace(' ', '-')}"
            yield Case(KIND, fault, "optimize", name, partial(_in_phase, bench, way, number))
    for command in ("verified", "evaluate", "multirun", "export model", "export text", "report"):
        for i in range(max(1, count // 50)):
            for way in (*SIGNALS, CLOSED):
                name = f"stop-{command.replace(' ', '-')}-{_name(way).replace(' ', '-')}-{i}"
                moment = chance.random()
                yield Case(
                    KIND, f"{_name(way)} at a random moment", command, name, partial(_at, bench, way, command, moment)
                )


def phases_of(bench: Bench, command: str) -> list[str]:
    """What the stopwatch of an undisturbed command says, in order."""
    place = bench.place("phases")
    file = place.with_name("phases.txt")
    file.unlink(missing_ok=True)

    def note(name: str) -> None:
        with file.open("a") as opened:
            opened.write(f"{name}\n")

    start(COMMANDS[command], place, lambda: _on_phase(note)).wait()
    return file.read_text().splitlines()


def _on_phase(act: Callable[[str], None]) -> None:
    from embedgrad_cli.storage.stopwatch import Stopwatch

    begin = Stopwatch.begin

    def begun(self: Stopwatch, name: str) -> None:
        begin(self, name)
        act(name)

    Stopwatch.begin = begun  # type: ignore[method-assign, assignment]


def _in_phase(bench: Bench, way: signal.Signals | str, number: int, place: Path) -> list[str]:
    reached, seen = place.with_name(f"{place.name}.{MARK}"), list[str]()

    def act(name: str) -> None:
        seen.append(name)
        if len(seen) == number + 1:
            reached.write_text(str(time.monotonic()))
            if isinstance(way, signal.Signals):
                os.kill(os.getpid(), way)
            else:
                time.sleep(0.5)  # until the terminal is closed

    process = start(_argv("optimize", way), place, lambda: _on_phase(act), on_terminal=way == CLOSED)
    while not (reached.exists() and reached.read_text()) and time.monotonic() - process.started < SECONDS * 6:
        process.listen(0.005)
    if process.terminal is not None:
        os.close(process.terminal)
    ended = process.without_terminal().wait()
    took = process.started + ended.seconds - float(reached.read_text())
    said = is_said(ended, (INTERRUPTED,)) if way != CLOSED else _code(ended.code, (INTERRUPTED,))
    return said + _in_time(took) + half_written(place) + bench.run_again("optimize", place)


def _at(bench: Bench, way: signal.Signals | str, command: str, moment: float, place: Path) -> list[str]:
    process = start(_argv(command, way), place, on_terminal=way == CLOSED)
    due = process.started + moment * bench.undisturbed(command).seconds
    while time.monotonic() < due:
        process.listen(0.005)
    asked = time.monotonic()
    if isinstance(way, signal.Signals):
        process.send(way)
    elif process.terminal is not None:
        os.close(process.terminal)
    ended = process.without_terminal().wait()
    took = process.started + ended.seconds - asked
    codes = (0, INTERRUPTED)  # 0: it had just ended
    said = is_said(ended, codes) if way != CLOSED else _code(ended.code, codes)
    return said + _in_time(took) + half_written(place) + bench.run_again(command, place)


def _argv(command: str, way: signal.Signals | str) -> list[str]:
    """On a terminal with bars."""
    return [word for word in COMMANDS[command] if way != CLOSED or word != "--quiet"]


def _code(code: int, codes: tuple[int, ...]) -> list[str]:
    return [] if code in codes else [f"it ends with exit code {code}"]


def _in_time(seconds: float) -> list[str]:
    return [] if seconds <= SECONDS else [f"it took {seconds:.1f} s to stop"]


def _name(way: signal.Signals | str) -> str:
    return way.name if isinstance(way, signal.Signals) else way
