"""What `--dry-run` and its companions ask for; they are no settings, because nothing of a run depends on them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DryRun:
    """A forecast in place of a run.

    Args:
        timed: load the model, and time a step and a batch of answers.
        memory: bytes that the device has; None: what is free here.
        tflops: 10^12 operations per second that the device is taken to do; None takes nothing.
    """

    timed: bool = False
    memory: int | None = None
    tflops: float | None = None
