"""Some tokens of the prompt fall back to the seed in each step, so that none relies on all others."""

from __future__ import annotations

import torch
from torch import Tensor

from embedgrad_cli.core.kernels.placed import placed
from embedgrad_cli.core.passes.sampling import seeded
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt


class TokenDropout:
    """In a step, each vector is its seed embedding with this probability, and has no gradient then.

    That is mixout (Lee et al. 2020, arXiv 1909.11299), which replaces the weights of some neurons by those before
    training, with the vector of a token in a neuron's place. Mixout enlarges what moved of the others so that the
    expectation stays; here that would train vectors outside of the trust region, so nothing is enlarged.

    Args:
        probability: None or 0 drops nothing.
        seed: with the number of a step it decides what is dropped, so a resumed run drops the same.
    """

    def __init__(self, probability: float | None, seed: int) -> None:
        self.probability, self.seed = probability or 0.0, seed

    def of(self, prompt: SoftPrompt, step: int) -> SoftPrompt:
        """The prompt that the loss of this step is taken with."""
        if not self.probability:
            return prompt
        dropped = self._dropped(prompt, step)
        return SoftPrompt(prompt.slots, prompt.seed, torch.where(dropped, prompt.seed, prompt.vectors))

    def hand_back(self, used: SoftPrompt, prompt: SoftPrompt, step: int) -> None:
        """Give the prompt the gradient of the one that was used; vectors that were dropped have none."""
        if used is not prompt and used.vectors.grad is not None:
            prompt.vectors.grad = used.vectors.grad.masked_fill(self._dropped(prompt, step), 0.0)

    def _dropped(self, prompt: SoftPrompt, step: int) -> Tensor:
        """`[num_tokens, 1]`"""
        # Another stream than that of the batches, which are shuffled by the seed and the epoch.
        generator = seeded((self.seed + 1) * 1_000_000_007 + step)
        drawn = torch.rand(len(prompt.seed), 1, generator=generator)
        return placed(drawn < self.probability, prompt.seed.device)
