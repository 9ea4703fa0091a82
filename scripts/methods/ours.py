"""embedgrad, by the product's own `Training`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from embedgrad_cli.config.fields import seeds_of
from embedgrad_cli.config.schema import WITHOUT_EFFECT, OptimizeConfig
from embedgrad_cli.core.prompt.artifact import load_artifact
from embedgrad_cli.evaluation.arms import Arm, ArmPrompt, build_arms
from embedgrad_cli.storage.run_directory import RunDirectory
from embedgrad_cli.tasks.load import Row
from embedgrad_cli.training.trainer import NonFiniteLoss, Training

from .memory import StepMemory
from .problem import Method, Problem, weights_hash
from .records import Trial
from .settings import variant_of


class MeasuredTraining(Training):
    """The product's training, and the memory that its steps take."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.memory = StepMemory()

    def _step(self, *arguments: Any) -> None:
        with self.memory:
            super()._step(*arguments)


@dataclass(frozen=True)
class EmbedGrad(Method):
    trust_region: bool = True  # the product's default one

    def config(self, problem: Problem) -> OptimizeConfig:
        config = problem.config
        return config if self.trust_region else replace(config, trust_region=replace(config.trust_region, kind="none"))

    def variant(self, problem: Problem) -> str | None:
        return variant_of(self.config(problem))

    def folder(self, problem: Problem) -> str:
        return "-".join([self.name, *(self.variant(problem) or "").replace(",", "").split()])

    def train(self, problem: Problem, lr: float | None, folder: Path) -> Trial:
        assert lr is not None
        config = self.config(problem)
        config = replace(config, output_dir=str(folder), optimizer=replace(config.optimizer, lr=lr))
        model, directory = problem.fresh_model(), RunDirectory(folder, asdict(config), free=WITHOUT_EFFECT)
        before = weights_hash(model.network)
        training = MeasuredTraining(config, model, problem.splits, directory)
        directory.create()
        with suppress(NonFiniteLoss):  # it keeps its best so far, as every method here does
            training.fit()
        best, steps = training.state.validation, map(json.loads, directory.metrics.read_text().splitlines())
        return Trial(
            lr=lr,
            accuracy=best.accuracy,
            loss=best.loss,
            step=best.step,
            parameters=training.prompt.vectors.numel(),
            seconds=sum(row.get("seconds", 0.0) for row in steps),
            peak_bytes=training.memory.peak,
            weights_before=before,
            weights_after=weights_hash(model.network),
        )

    def arm(self, problem: Problem, folder: Path, rows: Sequence[Row]) -> Arm:
        prompt = load_artifact(folder / "prompt.safetensors").prompt
        return arm_of(problem, rows, ArmPrompt(seeds_of(problem.config.prompt), prompt))


def arm_of(problem: Problem, rows: Sequence[Row], prompt: ArmPrompt) -> Arm:
    """The product's own arm with this prompt, on a fresh model."""
    return build_arms(rows, problem.fresh_model(), problem.template, problem.config.task, {"arm": prompt}).arms["arm"]
