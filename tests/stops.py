"""Stops at a place that a test chooses, as Ctrl-C asks for them."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from embedgrad_cli.commands import optimize
from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.storage.interrupts import Stopped
from embedgrad_cli.training.trainer import Training


def run_until(step: int, config: OptimizeConfig) -> None:
    """An optimisation that is stopped after so many of its steps, from its first on."""
    whole_step = Training._step

    def interrupted(self: Training, *args: Any) -> None:
        whole_step(self, *args)
        if self.state.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "_step", interrupted)
        with pytest.raises(Stopped):
            optimize.run(config)


def stop_at_batch(number: int, log: type, patch: pytest.MonkeyPatch) -> list[int]:
    """Ask for a stop before a log of answers gets this batch. Returns: the sizes of all that it is given."""
    add, added = log.add, list[int]()  # type: ignore[attr-defined]

    def interrupted(self: Any, batch: Any) -> None:
        added.append(len(batch))
        if len(added) == number:
            os.kill(os.getpid(), signal.SIGINT)
        add(self, batch)

    patch.setattr(log, "add", interrupted)
    return added
