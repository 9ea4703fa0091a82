"""Targets without the tokens that the seed finds improbable."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from embedgrad_cli.core.objectives import MaskedGold
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.scoring import Decoder
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Example
from embedgrad_cli.errors import UserError
from embedgrad_cli.storage.interrupts import stop_if_asked
from embedgrad_cli.training.targets.targets import Material, Targets

log = logging.getLogger(__name__)


class Masked:
    """The batches of other targets, of which the loss leaves out tokens below the probability `objective.mask`.

    What the seed finds of a target is computed once, with the first batch that the target is in; of each example
    alone, so that it does not depend on where a run was stopped.
    """

    rewards = None

    def __init__(self, material: Material, targets: Targets, least: float) -> None:
        self.material, self.targets, self.least = material, targets, least
        self._kept: dict[Example, tuple[bool, ...]] = {}
        self.objective = MaskedGold(self._kept)
        self._seed: Decoder | None = None

    def batch(self, step: int, prompt: SoftPrompt) -> Sequence[Example]:
        batch = self.targets.batch(step, prompt)
        new = [example for example in batch if example not in self._kept]
        self._seed = self._seed or self._decoder(SoftPrompt(prompt.slots, prompt.seed))
        ranks = self.material.ranks
        own = ranks.share([example.length for example in new])
        for part in ranks.gather(lambda: [(i, self._probable(new[i])) for i in own]):
            self._kept.update((new[i], tuple(kept)) for i, kept in part)
        if new:
            tokens, kept = sum(len(example.target) for example in new), self.objective.num_terms(new)
            log.info("objective.mask leaves out %d of %d target tokens of %d rows", tokens - kept, tokens, len(new))
        if not self.objective.num_terms(batch):
            raise ranks.alike(
                UserError(
                    f"objective.mask={self.least:g}: it leaves out every target token of the rows of step {step + 1}, "
                    "so there is nothing to train on. Give a smaller number, more rows per step (train.batch_size), or "
                    "null."
                )
            )
        return batch

    def _probable(self, example: Example) -> list[bool]:
        """Of each target token, whether the seed finds it probable enough."""
        stop_if_asked()
        assert self._seed is not None
        return (self._seed.target_losses(example) <= -math.log(self.least)).tolist()

    def _decoder(self, seed: SoftPrompt) -> Decoder:
        material = self.material
        return Decoder(Forward(material.model, material.examples, material.shares_trunk), seed)
