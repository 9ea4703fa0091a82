"""Real processes that are one run: each does the same work, and what came of it is written down."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from embedgrad_cli.commands import optimize  # noqa: F401 - imported once, before the processes are forked

PATIENCE = 120  # seconds in which processes that wait for each other for ever are found out


@dataclass(frozen=True)
class Ended:
    """How one process ended: what its work returned, or the class and the words of what it raised."""

    exit_code: int | None
    result: Any = None
    error: str | None = None
    message: str = ""


def start(count: int, work: Callable[..., Any], *arguments: Any) -> Callable[[], list[Ended]]:
    """Start `work(*arguments)` in so many processes. Returns: what waits for their end."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    folder, port = Path(tempfile.mkdtemp()), free_port()
    processes = [
        context.Process(target=_enter, args=(number, count, port, folder / str(number), work, arguments))
        for number in range(count)
    ]
    for process in processes:
        process.start()

    def ended() -> list[Ended]:
        for process in processes:
            process.join(PATIENCE)
            process.kill()
            process.join()
        files = [folder / str(number) for number in range(count)]
        said = [json.loads(file.read_text()) if file.exists() else {} for file in files]
        return [Ended(process.exitcode, **of_one) for process, of_one in zip(processes, said, strict=True)]

    return ended


def run(count: int, work: Callable[..., Any], *arguments: Any) -> list[Ended]:
    return start(count, work, *arguments)()


def results(count: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What the work returns in every process; none may fail."""
    ended = run(count, work, *arguments)
    assert [one.exit_code for one in ended] == [0] * count, ended
    return [one.result for one in ended]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _enter(
    number: int, count: int, port: int, file: Path, work: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number)}
    os.environ |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    code = 0
    try:
        said = {"result": work(*arguments)}
    except BaseException as error:
        said = {"error": type(error).__name__, "message": str(error)}
        code = getattr(error, "exit_code", 1)
    file.write_text(json.dumps(said))
    sys.exit(code)
