"""Clocks and memory, on a CPU and on a GPU."""

from __future__ import annotations

import ctypes
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import torch

from embedgrad_cli.core.kernels.memory import is_out_of_memory, peak_memory, resident_memory

T = TypeVar("T")
MATMUL_SIZES = {"cpu": 1024, "cuda": 8192}
RESET_PEAK = "5"  # what /proc/PID/clear_refs takes for it


def timed(function: Callable[[], Any]) -> float:
    """Seconds that a call takes, the GPU's work included."""
    _synchronise()
    started = time.perf_counter()
    function()
    _synchronise()
    return time.perf_counter() - started


def medians(functions: Sequence[Callable[[], Any]], repeats: int) -> list[float]:
    """Median seconds of each, taken in turns, so that a slow minute of the machine meets all of them.

    Before each measured call comes one that is not: steps follow steps of their own kind, and what another function
    left in the caches and the memory allocator should not be in the figure.
    """

    def second(function: Callable[[], Any]) -> float:
        function()
        return timed(function)

    rounds = [[second(function) for function in functions] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def medians_apart(
    makers: Sequence[tuple[Callable[..., Callable[[], Any]], tuple[Any, ...]]], repeats: int
) -> list[Any]:
    """`medians` of functions that live in a process each, as users run them: in one process the larger one leaves its
    marks in the memory that the other works in. None where the system killed the process, as it does for memory.

    Args:
        makers: functions at the top of a module, and their arguments; each gives, in its process, what is measured.
    """
    context = get_context("spawn")
    workers = []
    for maker, arguments in makers:
        here, there = context.Pipe()
        process = context.Process(target=_measure_on_request, args=(there, maker, arguments))
        process.start()
        there.close()
        workers.append((process, here))
    rounds = [[_ask(connection) for _, connection in workers] for _ in range(repeats)]
    for process, connection in workers:
        connection.close()
        process.join()
    columns = list(zip(*rounds, strict=True))
    return [None if None in column else statistics.median(column) for column in columns]


def _ask(connection: Any) -> float | None:
    try:
        connection.send(None)
        return connection.recv()
    except (EOFError, OSError):
        return None


def _measure_on_request(connection: Any, maker: Callable[..., Callable[[], Any]], arguments: Sequence[Any]) -> None:
    function = maker(*arguments)
    with suppress(EOFError):  # the other end closes when it has seen enough
        while True:
            connection.recv()
            function()
            connection.send(timed(function))


def matmul_rate(device: str, dtype: str, size: int | None = None, repeats: int = 20) -> float:
    """Operations per second of a large square matrix product, the best that this machine does."""
    n = size or MATMUL_SIZES[device]
    a, b = (torch.randn(n, n, device=device).to(getattr(torch, dtype)) for _ in range(2))
    torch.mm(a, b)
    return 2 * n**3 / min(timed(lambda: torch.mm(a, b)) for _ in range(repeats))


def added_memory(function: Callable[[], Any], device: str) -> int:
    """Bytes at the peak of a call beyond what was held before it: tensors on a GPU, else resident memory.

    On a CPU this is for a process that has done little else: what it has freed, it may use again unseen.
    """
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        return torch.cuda.max_memory_allocated() - before
    _return_free_memory()
    before = resident_memory()
    with suppress(OSError):  # where it may not be reset, the peak is that of the whole process
        Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    function()
    return max((peak_memory(torch.device("cpu")) or 0) - before, 0)


def unless_out_of_memory(function: Callable[[], T]) -> T | None:
    """What the function returns; None if memory ran out."""
    try:
        return function()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def in_fresh_process(function: Callable[..., T], *arguments: Any) -> T | None:
    """What the function returns in a process of its own; None if the system killed that, as it does for memory."""
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call_and_send, args=(sender, function, arguments))
    process.start()
    sender.close()
    result = None
    with suppress(EOFError):  # nothing was sent
        result = receiver.recv()
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{function.__name__} failed in its own process (exit code {process.exitcode})")
    return result


def _call_and_send(sender: Connection, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
    sender.send(function(*arguments))


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _return_free_memory() -> None:
    """Ask the C library to hand freed memory back, where it knows how (glibc)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
