"""Starts the processes of a run on this machine: by torchrun, in this process."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from embedgrad_cli.errors import EmbedgradError, EndedElsewhere
from embedgrad_cli.storage.interrupts import Stopped

THREADS = "OMP_NUM_THREADS"
# Signals that torchrun handles, and goes on handling after its run; Windows has only two of them.
HANDLED = [signal.Signals[n] for n in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT") if n in signal.Signals.__members__]


def start(processes: int, words: Sequence[str]) -> None:
    """Run `embedgrad WORDS` in so many processes, and wait for their end. A signal is handed on to all of them.

    They share the cores, unless `OMP_NUM_THREADS` says how many each may use.

    Raises:
        EndedElsewhere: a process has failed, or was asked to stop, and has said so; with its exit code.
        EmbedgradError: one was killed.
    """
    from torch import get_num_threads
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    line = ["--standalone", f"--nproc-per-node={processes}", "-m", "embedgrad_cli", *words]
    with _handlers_kept(), _quiet(), _threads(max(get_num_threads() // processes, 1)):
        try:
            run(parse_args(line))
        except SignalException as stop:
            raise EndedElsewhere(str(stop), Stopped.exit_code) from None
        except ChildFailedError as failed:
            number, failure = failed.get_first_failure()
            if failure.exitcode > 0:
                raise EndedElsewhere(f"process {number} has failed", failure.exitcode) from None
            raise EmbedgradError(
                f"process {number} of {processes} was ended by {failure.signal_name()}; where nobody sent it, memory "
                "ran out as a rule. The run is kept as of its last checkpoint: the same command with its output_dir "
                "goes on from there, with as many processes as you like."
            ) from None


@contextmanager
def _handlers_kept() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in HANDLED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _quiet() -> Iterator[None]:
    """What torchrun logs of a process that fails, the process has said itself."""
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """What the processes inherit of it: torchrun gives each of them one thread where nothing is said."""
    before = os.environ.get(THREADS)
    os.environ.setdefault(THREADS, str(number))
    try:
        yield
    finally:
        if before is None:
            del os.environ[THREADS]
