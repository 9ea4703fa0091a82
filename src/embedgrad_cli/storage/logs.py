"""The log of a run: kept in memory until it is clear that the run has a folder, then written there."""

from __future__ import annotations

import logging
from contextlib import suppress
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Self

from embedgrad_cli.errors import EmbedgradError
from embedgrad_cli.guards.visible_text import VisibleFormatter

PACKAGE = "embedgrad_cli"


class _LogFile(logging.FileHandler):
    """A file that loses what there is no room for: what the run itself cannot write, it says."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's
        pass

    def close(self) -> None:
        with suppress(OSError):
            super().close()


class RunLog:
    """Collects what the package logs within the context. Warnings also go to stderr, at once.

    An unexpected error that ends the context is logged with its traceback.

    Args:
        level: the least important lines that are kept.
        quiet: the user is told nothing; another process says the same.
    """

    def __init__(self, level: str, quiet: bool = False) -> None:
        self._logger = logging.getLogger(PACKAGE)
        self._level = level.upper()
        self._handlers: list[logging.Handler] = []
        self._quiet = quiet
        self._collected = MemoryHandler(capacity=1_000, flushLevel=logging.CRITICAL + 1)

    def __enter__(self) -> Self:
        self._to_user = logging.StreamHandler()
        self._to_user.setLevel("WARNING")
        self._to_user.setFormatter(VisibleFormatter("embedgrad: %(message)s"))
        if not self._quiet:
            self._add(self._to_user)
        self._add(self._collected)
        self._logger.setLevel(self._level)
        self._logger.propagate = False
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._logger.removeHandler(self._to_user)  # whoever reports the error to the user does so without a traceback
        if isinstance(error, Exception) and not isinstance(error, EmbedgradError):
            self._logger.error("ended by an error that is not one of embedgrad's messages", exc_info=error)
        for handler in self._handlers:
            self._logger.removeHandler(handler)
            handler.close()

    def write_to(self, path: Path) -> None:
        """Write what was collected, and everything from now on, to a file."""
        file = _LogFile(path, encoding="utf-8")
        file.setFormatter(VisibleFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._collected.setTarget(file)
        self._collected.flush()
        self._logger.removeHandler(self._collected)
        self._add(file)

    def _add(self, handler: logging.Handler) -> None:
        self._logger.addHandler(handler)
        self._handlers.append(handler)
