"""How much memory there is, how much was used, and what to do when it runs out."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch

from embedgrad_cli.errors import EmbedgradError

log = logging.getLogger(__name__)

Row = TypeVar("Row")
Result = TypeVar("Result")

_ONE_IS_TOO_MUCH = (
    "memory ran out with a single example in validation or test. model.dtype=bfloat16, a smaller model or shorter rows "
    "need less, and task.too_long=skip leaves out what is longer than the model's context."
)


class OutOfMemory(EmbedgradError):
    """Not even one example fits."""


class RowsThatFit:
    """Runs work on as many rows at once as fit: on half of them whenever memory runs out. What fits is remembered.

    Args: may_halve: False lets the error through, as where other processes go on with all of them.
    """

    def __init__(self, may_halve: bool = True) -> None:
        self.most: int | None = None
        self.may_halve = may_halve

    def run(self, work: Callable[[Sequence[Row]], Sequence[Result]], rows: Sequence[Row]) -> list[Result]:
        """The results of `work`, which gives one for each row, in the order of the rows.

        Raises:
            OutOfMemory: not even one row fits.
        """
        done: list[Result] = []
        while len(done) < len(rows):
            part = rows[len(done) : len(done) + (self.most or len(rows))]
            try:
                done += work(part)
                continue
            except (RuntimeError, MemoryError) as error:
                if not self.may_do_less(error):
                    raise
            self.halve(len(part))  # out here the error and with it the tensors of the failed pass are gone
        return done

    def may_do_less(self, error: BaseException) -> bool:
        """Whether work that has failed so may be tried on fewer rows."""
        return self.may_halve and is_out_of_memory(error)

    def halve(self, rows: int) -> None:
        """So many were too much.

        Raises:
            OutOfMemory: it was one.
        """
        if rows <= 1:
            raise OutOfMemory(_ONE_IS_TOO_MUCH)
        self.most = rows // 2
        log.warning("memory ran out: %d examples at once from now on", self.most)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def free_memory(device: torch.device) -> int:
    """Bytes that are free now on the GPU, or in main memory; 0 where the system does not tell.

    In main memory what only caches files counts as free, and the limits of containers and batch systems count.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min([_available(), *left_in_groups()])


def _available() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0


# Of the two versions of Linux control groups: limit, usage, and in memory.stat the file cache that would be given up.
_GROUP_FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def left_in_groups(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Bytes that this process's control groups and those above them leave it, where they have a limit."""
    try:
        lines = [line.split(":", 2) for line in proc.read_text().splitlines()]
    except OSError:
        return []
    left = []
    for _, controllers, name in (line for line in lines if len(line) == 3):
        version = "memory" if "memory" in controllers.split(",") else controllers
        if version in _GROUP_FILES:
            # In a container the group may be mounted as the root itself.
            group = Path(name.lstrip("/"))
            left += [_left(root / version / above, *_GROUP_FILES[version]) for above in (group, *group.parents)]
    return [amount for amount in left if amount is not None]


def _left(group: Path, limit: str, usage: str, cached: str) -> int | None:
    try:
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used = int((group / usage).read_text()) - int(stat.get(cached, 0))
        return max(int((group / limit).read_text()) - used, 0)  # "max" is no number: there is no limit
    except (OSError, ValueError):
        return None


def peak_memory(device: torch.device) -> int | None:
    """The most bytes this process has held: tensors on the GPU, or all of it in main memory; None: not known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = _proc_status("VmHWM")  # getrusage's begins with the peak of the process that started this one
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident_memory() -> int:
    """Bytes of main memory that this process holds now; the most it has held where the system tells no more."""
    return _proc_status("VmRSS") or peak_memory(torch.device("cpu")) or 0


def _proc_status(field: str) -> int | None:
    """Bytes of main memory that this process holds (`VmRSS`) or has held at most (`VmHWM`); None but on Linux."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
    return None


def storage_key(tensor: torch.Tensor) -> int:
    """A number of a tensor's storage itself: on the meta device no address tells two apart."""
    return tensor.untyped_storage()._cdata


def is_out_of_memory(error: BaseException) -> bool:
    """On a CPU PyTorch raises a plain RuntimeError, known by its words alone."""
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    )
