"""The update rule and the course of the learning rate."""

from __future__ import annotations

import math

import torch

from embedgrad_cli.config.schema import OptimizerConfig
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt


def make_optimizer(config: OptimizerConfig, prompt: SoftPrompt) -> torch.optim.Optimizer:
    """PyTorch's optimiser over the prompt's vectors. Its learning rate is set at every step, see `learning_rate`."""
    parameters = list(prompt.parameters())
    if config.name == "sgd":
        return torch.optim.SGD(parameters, momentum=config.momentum, weight_decay=config.weight_decay)
    betas = (config.betas[0], config.betas[1])
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(parameters, betas=betas, weight_decay=config.weight_decay)


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """The learning rate of the step after `step` steps, in units of the embedding table's RMS."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(steps - config.warmup_steps, 1)
    factors = {
        "constant": 1.0,
        "linear": 1.0 - progress,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * progress)),
    }
    return config.lr * factors[config.schedule]
