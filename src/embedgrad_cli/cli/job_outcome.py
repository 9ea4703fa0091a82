"""What came of the jobs of a sweep."""

from __future__ import annotations

from dataclasses import dataclass

from embedgrad_cli.errors import EmbedgradError


class Pruned(EmbedgradError):
    """A study has no hope for this trial. Its run directory stays as it is, without a test."""


class SweepFailed(EmbedgradError):
    """Some runs of a sweep failed. The others are finished."""


@dataclass(frozen=True, kw_only=True)
class JobOutcome:
    """What came of one job. It travels from the process of the job to that of the sweep.

    Args:
        name: the job's run directory within the sweep's.
        overrides: its part of the command line.
        value: the validation accuracy, where there is one.
        failure: why it failed, or None.
        pruned: a study ended it before its last step.
        exit_code: what the job alone would have ended with.
    """

    sweep_dir: str
    name: str
    overrides: tuple[str, ...]
    value: float | None = None
    failure: str | None = None
    pruned: bool = False
    exit_code: int = 0

    def __float__(self) -> float:
        """For sweepers that maximise or minimise.

        Raises:
            SweepFailed: the job failed, or has no value.
        """
        if self.value is None:
            raise SweepFailed(self.failure or f"job {self.name} has no value.")
        return self.value
