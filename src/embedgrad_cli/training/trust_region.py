"""The bound on how far the vectors may move."""

from __future__ import annotations

import torch

from embedgrad_cli.config.schema import TrustRegionConfig
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt


class TrustRegion:
    """Keeps every vector near its seed, because the optimised prompt should still mean what the seed says.

    `ball`: after each step a vector outside the ball of `radius * rms * sqrt(hidden_size)` around its seed is moved to
    its surface (PEFT's CPT bounds its context tokens in the same way). `penalty`: the mean squared distance, in the
    same unit, times `weight` is added to the loss. `none`: no bound.
    """

    def __init__(self, config: TrustRegionConfig, embedding_rms: float) -> None:
        self.config, self.rms = config, embedding_rms

    def add_penalty_gradient(self, prompt: SoftPrompt) -> None:
        """Add the gradient of the penalty to the prompt's; does nothing for the other kinds."""
        if self.config.kind == "penalty":
            penalty = self.config.weight * ((prompt.vectors - prompt.seed) / self.rms).square().mean()
            penalty.backward()

    @torch.no_grad()
    def project(self, prompt: SoftPrompt) -> None:
        """Move vectors that left the ball back to its surface; does nothing for the other kinds."""
        if self.config.kind != "ball":
            return
        delta = prompt.vectors - prompt.seed
        limit = self.config.radius * self.rms * delta.shape[1] ** 0.5
        scale = (limit / delta.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1.0)
        # Vectors inside stay untouched to the last bit, so that an unmoved prompt still is its seed.
        prompt.vectors.copy_(torch.where(scale < 1.0, prompt.seed + delta * scale, prompt.vectors))
