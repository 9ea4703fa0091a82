"""Ctrl-C and SIGTERM wait for the end of a step or batch, so that nothing that was done is lost."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any, Self

from embedgrad_cli.errors import EmbedgradError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(EmbedgradError):
    """The user, or a cluster's scheduler, asked the run to stop (exit code 130)."""

    exit_code = 130

    def __init__(self, last: str, output_dir: Path) -> None:
        super().__init__(
            f"stopped after {last}; what was done is kept in {output_dir}. "
            f"The same command with output_dir={output_dir} goes on from there."
        )


class StopRequest:
    """Within the context, the first signal sets `requested`; a second one interrupts at once."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # signals cannot be caught elsewhere
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
