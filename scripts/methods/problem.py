"""What every method is given alike: settings, rows and frozen weights."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from embedgrad_cli import assets
from embedgrad_cli.config.schema import WITHOUT_EFFECT as CHANGES_NO_RESULT
from embedgrad_cli.config.schema import ModelConfig, OptimizeConfig, TemplateConfig
from embedgrad_cli.core.model.device import pick_device
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.model.load import load_model
from embedgrad_cli.core.text.few_shot import with_examples
from embedgrad_cli.evaluation.arms import Arm
from embedgrad_cli.tasks.demonstrations import load_for
from embedgrad_cli.tasks.load import Row, Splits

from .records import Trial
from .settings import OURS_IN_TRAINING, compose, model_choice, prompt_choice

EMBEDDED = ("word-problems", "reviews", "causes", "recommend")
# They change no number: neither where things lie, nor how much is computed at once.
WITHOUT_EFFECT = {
    "model": ("path", "revision", "trust_remote_code", "attention"),
    "task": ("data_dir", "hub", "fold", "broken", "too_long", "keep"),
    "optimizer": ("lr",),
    "train": ("micro_batch_size", "cache_queries", "checkpoint_activations", "checkpoint_every"),
}
OTHER_GROUPS = (*CHANGES_NO_RESULT, "seed", "evaluation")
OURS = ("trust_region", "objective")  # they concern embedgrad alone, and name its folder
MODEL_FILES = ("*.safetensors", "*.gguf", "*.json", "*.jinja", "*.model")


@dataclass(frozen=True)
class Problem:
    """A task under one seed and one model, with the product's own settings: `Problem.compose("reviews", ["seed=1"])`.

    `prompt` is a choice of `conf/prompt`, or a text of one's own.
    """

    config: OptimizeConfig
    splits: Splits

    @classmethod
    def compose(cls, task: str, overrides: Sequence[str], model: str = "tiny", prompt: str | None = None) -> Problem:
        """The task with its seed prompt as the system turn. Raises `ConfigError`, `UserError` or `DataError`."""
        groups = {"template": "template=system", "device": "device=cpu"}
        named = {override.partition("=")[0] for override in overrides}
        defaults = [line for key, line in groups.items() if key not in named]
        return cls.of([*model_choice(model), f"task={task}", *prompt_choice(task, prompt), *defaults, *overrides])

    @classmethod
    def of(cls, overrides: Sequence[str]) -> Problem:
        """What `embedgrad optimize` would run with these overrides. Raises `ConfigError` or `DataError`."""
        return cls(*load_for(compose(overrides)))

    @property
    def name(self) -> str:
        return self.config.task.name

    @property
    def template(self) -> TemplateConfig:
        """With the task's worked examples."""
        return with_examples(self.config.template, self.splits.fewshot, self.config.task.fewshot_style)

    def fresh_model(self) -> LanguageModel:
        """Loaded anew for every trial, so that none can leave anything to the next."""
        return load_model(self.config.model, pick_device(self.config.device))

    @cached_property
    def series(self) -> str:
        """A folder's name that changes with whatever a number depends on, apart from seed, fold and training size."""
        content = json.dumps([self.settings, model_digest(self.config.model)], sort_keys=True)
        return f"{self.name}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"

    @cached_property
    def key(self) -> str:
        """The folder's name below that of the series, for one seed, fold and training size."""
        fold = "" if self.config.task.fold is None else f"-fold{self.config.task.fold}"
        return f"n{len(self.splits.train)}-seed{self.config.seed}{fold}-{self.splits.content_digest[:8]}"

    @property
    def settings(self) -> dict[str, Any]:
        """What numbers depend on. A setting that is nothing (null, 0, false) is as if it were not there."""
        groups = {key: value for key, value in asdict(self.config).items() if key not in (*OTHER_GROUPS, *OURS)}
        groups["task"]["split"].pop("num_train")
        for group, names in WITHOUT_EFFECT.items():
            for name in names:
                groups[group].pop(name)
        for name in OURS_IN_TRAINING:
            groups["train"].pop(name, None)
        return _without_nothing(groups)


def _without_nothing(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without_nothing(one) for key, one in value.items() if one}


def model_digest(config: ModelConfig) -> str:
    """A sha256 over a model's files; of one that is on the hub, its name and revision."""
    path = Path(assets.resolve(config.path))
    if not path.exists():
        return f"{config.path}@{config.revision}"
    files = [path] if path.is_file() else sorted(file for names in MODEL_FILES for file in path.glob(names))
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            total.update(file.name.encode() if path.is_dir() else b"")
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


@dataclass(frozen=True)
class Method(ABC):
    """One way to adapt the model, and the learning rates to try. `name` is that of the command line.

    `shares_answers`: what it answers follows from what the model reads, so other seeds with the same rows need not ask
    again. Not so where the weights differ.
    """

    name: str
    title: str
    rates: tuple[float, ...] = ()
    shares_answers = False

    def tries(self) -> Mapping[str, float | None]:
        """The trainings, by the name of their folder."""
        return {f"lr-{lr:g}": lr for lr in self.rates}

    def folder(self, problem: Problem) -> str:
        """The name of its folder; it changes with what this method alone depends on."""
        return self.name

    def variant(self, problem: Problem) -> str | None:
        """What is said of it beside its title: what else its folder's name depends on."""
        return None

    @abstractmethod
    def train(self, problem: Problem, lr: float | None, folder: Path) -> Trial:
        """Train, and leave the best of the validations in the folder, which exists."""

    @abstractmethod
    def arm(self, problem: Problem, folder: Path, rows: Sequence[Row]) -> Arm:
        """What `train` left in the folder, ready to answer rows."""


def weights_hash(network: torch.nn.Module) -> str:
    """A sha256 over the base weights; what PEFT put beside them (`lora_…`), and how it renamed them, is left out."""
    total = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        if "lora_" not in name:
            total.update(name.replace(".base_layer", "").encode())
            total.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
