"""Targets that the data has: what a row's author wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.core.objectives import Objective
from embedgrad_cli.core.passes.batching import training_batches
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Example


class Written:
    """The same examples in every epoch, shuffled; see `training_batches`."""

    rewards = None

    def __init__(self, config: OptimizeConfig, examples: Sequence[Example], objective: Objective) -> None:
        self.config, self.examples, self.objective = config, examples, objective
        self._batches: Iterator[list[Example]] | None = None

    def batch(self, step: int, prompt: SoftPrompt) -> Sequence[Example]:
        if self._batches is None:
            self._batches = batches_from(step, self.examples, self.config)
        return next(self._batches)


def batches_from(step: int, examples: Sequence[Example], config: OptimizeConfig) -> Iterator[list[Example]]:
    """`training_batches` as the settings say, from a step on."""
    train = config.train
    return training_batches(
        examples, train.batch_size, config.seed, step, train.tokens_per_batch, lambda example: example.length
    )
