"""The resident memory at the peak of a training step."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Self

import torch

from bench.measure import RESET_PEAK
from embedgrad_cli.core.kernels.memory import peak_memory


class StepMemory:
    """Around every step: `with memory: …`. `peak` is the largest of their peaks in bytes, the whole process counted.

    Where the system does not let the peak be reset (it does on Linux), it is that of the process so far.
    """

    def __init__(self) -> None:
        self.peak: int | None = None

    def __enter__(self) -> Self:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text(RESET_PEAK)
        return self

    def __exit__(self, *_: object) -> None:
        self.peak = max(self.peak or 0, peak_memory(torch.device("cpu")) or 0)
