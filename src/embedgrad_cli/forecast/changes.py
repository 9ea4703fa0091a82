"""What to change where a run would not fit, tried out one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.forecast.figures import Changes, Moment
from embedgrad_cli.forecast.memory import ANSWERS, START, TRAINING, Place, moment_of, moments_of
from embedgrad_cli.forecast.workload import Workload


def find_changes(work: Workload, place: Place, moments: dict[str, Moment]) -> Changes | None:
    """Settings with which the run fits, those first that change no result; None: it fits as it is.

    They are smaller batches in validation and test, smaller micro-batches, checkpointed activations; and half
    precision, which changes results, where all that is not enough.

    Args: work: of a model on the meta device, whose precision may be changed here.
    """
    if place.memory is None or _peak(moments) <= place.memory:
        return None
    search = _Search(work, place, dict(moments))
    if START in search.too_large:  # the weights alone
        search.use_half_precision()
    search.halve(ANSWERS, "evaluation.batch_size", work.config.evaluation.batch_size, _with_answers)
    search.halve(TRAINING, "train.micro_batch_size", max(map(len, work.batches), default=1), _with_micro_batches)
    if TRAINING in search.too_large:
        search.change(TRAINING, "train.checkpoint_activations", "true", _with_checkpoints(search.work.config))
    if search.too_large:
        search.use_half_precision()
    return Changes(tuple(f"{k}={v}" for k, v in search.made.items()), _peak(search.moments), not search.too_large)


class _Search:
    """The settings changed so far, and what every stage then takes."""

    def __init__(self, work: Workload, place: Place, moments: dict[str, Moment]) -> None:
        self.work, self.place, self.moments, self.made = work, place, moments, dict[str, object]()

    @property
    def too_large(self) -> list[str]:
        assert self.place.memory is not None
        return [stage for stage, moment in self.moments.items() if moment.total > self.place.memory]

    def change(self, stage: str, key: str, value: object, config: OptimizeConfig) -> None:
        self.work, self.made[key] = replace(self.work, config=config), value
        self.moments[stage] = moment_of(self.work, self.place, stage)

    def halve(self, stage: str, key: str, size: int, changed: Callable[[OptimizeConfig, int], OptimizeConfig]) -> None:
        while stage in self.too_large and size > 1:
            size //= 2
            self.change(stage, key, size, changed(self.work.config, size))

    def use_half_precision(self) -> None:
        if self.work.model.dtype == torch.float32:
            self.made["model.dtype"] = "bfloat16"
            self.work.model.network.to(torch.bfloat16)
            self.moments = moments_of(self.work, self.place)


def _with_answers(config: OptimizeConfig, size: int) -> OptimizeConfig:
    return replace(config, evaluation=replace(config.evaluation, batch_size=size))


def _with_micro_batches(config: OptimizeConfig, size: int) -> OptimizeConfig:
    return replace(config, train=replace(config.train, micro_batch_size=size))


def _with_checkpoints(config: OptimizeConfig) -> OptimizeConfig:
    return replace(config, train=replace(config.train, checkpoint_activations=True))


def _peak(moments: dict[str, Moment]) -> int:
    return max(moment.total for moment in moments.values())
