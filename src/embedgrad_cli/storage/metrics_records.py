"""The lines of `metrics.jsonl`: one after every optimiser step, and one after every validation."""

from __future__ import annotations

from dataclasses import dataclass

from embedgrad_cli.storage.record import Record


@dataclass(frozen=True, kw_only=True)
class StepMetrics(Record):
    """A line of `metrics.jsonl` after an optimiser step. `lr` is in embedding units, `drift` relative to the seed.

    `reward` is the mean over the answers that were drawn, `rows_used` the share of the batch's rows whose rewards
    differed; without any the step changed nothing, and `loss` and `grad_norm` are 0.
    """

    step: int
    loss: float
    grad_norm: float
    lr: float
    drift: float
    tokens: int
    seconds: float
    reward: float | None = None
    rows_used: float | None = None


@dataclass(frozen=True, kw_only=True)
class ValidationMetrics(Record):
    """A line of `metrics.jsonl` after a validation; `best` says whether its prompt was kept."""

    step: int
    validation_accuracy: float
    validation_loss: float
    best: bool
