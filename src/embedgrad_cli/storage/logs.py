"""The log of a run."""

from __future__ import annotations

import logging
from logging.handlers import MemoryHandler
from pathlib import Path


def start_logging(level: str) -> MemoryHandler:
    """Collect log lines until it is clear that the run has a folder; warnings also go to stderr at once.

    Returns: the handler that `log_to` connects with a file.
    """
    package = logging.getLogger("embedgrad_cli")
    for handler in list(package.handlers):  # of an earlier run: a sweep has several in one process
        package.removeHandler(handler)
        handler.close()
    to_user = logging.StreamHandler()
    to_user.setLevel("WARNING")
    to_user.setFormatter(logging.Formatter("embedgrad: %(message)s"))
    collected = MemoryHandler(capacity=1_000, flushLevel=logging.CRITICAL + 1)
    for handler in (to_user, collected):
        package.addHandler(handler)
    package.setLevel(level.upper())
    package.propagate = False
    return collected


def log_to(path: Path, collected: MemoryHandler) -> None:
    """Write what was collected, and everything from now on, to a file."""
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    collected.setTarget(file)
    collected.close()  # flushes
    package = logging.getLogger("embedgrad_cli")
    package.removeHandler(collected)
    package.addHandler(file)
