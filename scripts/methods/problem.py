"""What every method is given alike: settings, rows and frozen weights."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from embedgrad_cli.config.build import build
from embedgrad_cli.config.compose import Composer
from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.core.model.language_model import LanguageModel, load_model, pick_device
from embedgrad_cli.errors import ConfigError
from embedgrad_cli.evaluation.arms import Arm
from embedgrad_cli.tasks.load import Row, Splits, load

SEED_PROMPTS = {
    "word-problems": "step-by-step",
    "reviews": "sentiment",
    "causes": "causal-judgement",
    "recommend": "recommend",
}


@dataclass(frozen=True)
class Problem:
    """A task under one seed, with the product's own settings: `Problem.compose("reviews", ["seed=1"])`."""

    config: OptimizeConfig
    splits: Splits

    @classmethod
    def compose(cls, task: str, overrides: Sequence[str]) -> Problem:
        """The task with its seed prompt as the system turn. Raises `ConfigError` or `DataError`."""
        choices = [f"task={task}", f"prompt={SEED_PROMPTS[task]}", "template=system", "device=cpu"]
        return cls.of([*choices, *overrides])

    @classmethod
    def of(cls, overrides: Sequence[str]) -> Problem:
        """What `embedgrad optimize` would run with these overrides. Raises `ConfigError` or `DataError`."""
        config = compose(overrides)
        return cls(config, load(config.task, config.seed))

    @property
    def name(self) -> str:
        return self.config.task.name

    def fresh_model(self) -> LanguageModel:
        """Loaded anew for every trial, so that none can leave anything to the next."""
        return load_model(self.config.model, pick_device(self.config.device))

    @cached_property
    def key(self) -> str:
        """A folder's name that changes with anything a result depends on: settings, rows, weights."""
        settings = {**asdict(self.config), "output_dir": None}
        parts = [json.dumps(settings, sort_keys=True), self.splits.hash, weights_hash(self.fresh_model().network)]
        return f"{self.name}-seed{self.config.seed}-{hashlib.sha256(''.join(parts).encode()).hexdigest()[:10]}"


@dataclass(frozen=True)
class Trial:
    """One training: its best validation, at which step, what it trained, and the seconds its steps took."""

    lr: float
    accuracy: float
    loss: float
    step: int
    parameters: int
    seconds: float
    weights_before: str
    weights_after: str


@dataclass(frozen=True)
class Method(ABC):
    """One way to adapt the model, and the learning rates to try."""

    title: str
    rates: tuple[float, ...]

    @abstractmethod
    def train(self, problem: Problem, lr: float, folder: Path) -> Trial:
        """Train, and leave the best of the validations in the folder, which exists."""

    @abstractmethod
    def arm(self, problem: Problem, folder: Path, rows: Sequence[Row]) -> Arm:
        """What `train` left in the folder, ready to answer rows."""


def compose(overrides: Sequence[str]) -> OptimizeConfig:
    """What `embedgrad optimize` would run with these overrides. Raises `ConfigError`."""
    cfg = Composer().compose("optimize", ["output_dir=unused", *overrides])
    settings = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    plain: Any = OmegaConf.to_container(settings, resolve=True)
    config, problems = build("optimize", plain)
    if not isinstance(config, OptimizeConfig):
        raise ConfigError(problems)
    return config


def weights_hash(network: torch.nn.Module) -> str:
    """A sha256 over the base weights; what PEFT put beside them (`lora_…`), and how it renamed them, is left out."""
    total = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        if "lora_" not in name:
            total.update(name.replace(".base_layer", "").encode())
            total.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
