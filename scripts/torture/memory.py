"""Less memory than a command takes: of the address space, and of a control group, whose kernel kills."""

from __future__ import annotations

import os
import random
import resource
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from torture.cases import Bench, Case, is_said, spread
from torture.check import half_written
from torture.work import COMMANDS, RUN, run

KIND = "memory"
TRIED = ("optimize", "evaluate", "export model", "multirun")
MOST = 160  # MiB beyond what the process has when it begins, with which every command here ends
GROUPS = Path("/sys/fs/cgroup/memory")
MIB = 2**20


def cases(bench: Bench, count: int, seed: int) -> Iterator[Case]:
    chance = random.Random(f"{KIND} {seed}")
    for command in TRIED:
        for mib in spread(max(2, count // 10), MOST, chance):
            name = f"memory-{command.replace(' ', '-')}-{mib}"
            yield Case(KIND, "address space (ulimit -v)", command, name, partial(_limited, bench, command, mib))
    if os.access(GROUPS, os.W_OK):
        for command in TRIED:
            for mib in spread(max(1, count // 40), 60, chance):
                name = f"memory-group-{command.replace(' ', '-')}-{mib}"
                yield Case(KIND, "control group", command, name, partial(_grouped, bench, command, mib))


def _limited(bench: Bench, command: str, mib: int, place: Path) -> list[str]:
    def hook() -> None:
        limit = _status("VmSize") + mib * MIB
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    return _ends(bench, command, place, hook, (0, 1, 2))


def _grouped(bench: Bench, command: str, mib: int, place: Path) -> list[str]:
    group = GROUPS / f"embedgrad-torture-{os.getpid()}"
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text(str(mib * MIB))

    def hook() -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()))

    try:
        return _ends(bench, command, place, hook, (0, 1, 2, -signal.SIGKILL))
    finally:
        group.rmdir()


def _ends(bench: Bench, command: str, place: Path, hook: Callable[[], None], codes: tuple[int, ...]) -> list[str]:
    """With a paragraph, or with what it was to do. A halved batch rounds otherwise, so this is not compared."""
    ended = run(COMMANDS[command], place, hook)
    wrong = [] if ended.code == -signal.SIGKILL and ended.code in codes else is_said(ended, codes)
    wrong += half_written(place)
    if ended.code == 0:
        return wrong
    again = bench.run_again(command, place)
    return wrong + [one for one in again if not (one.startswith(RUN) and one.endswith("differs"))]


def _status(field: str) -> int:
    """Bytes, of a field of this process's status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
