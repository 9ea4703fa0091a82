"""Equal commands, several at once so that they are in each other's way: every byte that is promised is the same."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from torture.cases import Bench, Case
from torture.work import COMMANDS, furnish, start

KIND = "equal"
AT_ONCE = 4
RUNS = 5  # for each that `count` counts


def cases(bench: Bench, count: int, seed: int) -> Iterator[Case]:
    for number in range(-(-count * RUNS // AT_ONCE)):
        name = f"equal-{number}"
        yield Case(KIND, f"{AT_ONCE} equal runs at once", "optimize", name, partial(_equal, bench), times=AT_ONCE)


def _equal(bench: Bench, place: Path) -> list[str]:
    places = [furnish(place / str(number), bench.base) for number in range(AT_ONCE)]
    processes = [start(COMMANDS["short"], one) for one in places]
    return [
        wrong
        for one, process in zip(places, processes, strict=True)
        for wrong in bench.ends_as_undisturbed("short", one, process.wait())
    ]
