"""From what the comparison's command line says to the product's own settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import OmegaConf

from embedgrad_cli.config.build import build
from embedgrad_cli.config.compose import Composer
from embedgrad_cli.config.folder import conf_dir
from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.errors import ConfigError, UserError

OURS_IN_TRAINING = ("average", "token_dropout")  # of the group train, what concerns embedgrad alone
SEED_PROMPTS = {
    "word-problems": "step-by-step",
    "reviews": "sentiment",
    "causes": "causal-judgement",
    "recommend": "recommend",
    "sst2": "sentiment",
    "causal-judgement": "causal-judgement",
    "gsm8k": "step-by-step",
    "math": "step-by-step",
}


def compose(overrides: Sequence[str]) -> OptimizeConfig:
    """What `embedgrad optimize` would run with these overrides. Raises `ConfigError`."""
    config = compose_command("optimize", ["output_dir=unused", *overrides])
    assert isinstance(config, OptimizeConfig)
    return config


def compose_command(command: str, overrides: Sequence[str]) -> Any:
    """The settings of a command with these overrides. Raises `ConfigError`."""
    cfg = Composer().compose(command, list(overrides))
    settings = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    plain: Any = OmegaConf.to_container(settings, resolve=True)
    config, problems = build(command, plain)
    if config is None:
        raise ConfigError(problems)
    return config


def model_choice(model: str) -> list[str]:
    """Overrides for a choice of `conf/model`, or for a folder, a GGUF file or a hub id."""
    if (conf_dir() / "model" / f"{model}.yaml").exists():
        return [f"model={model}"]
    path = Path(model).expanduser()
    return ["model=local", f"model.path={quoted(str(path.resolve()) if path.exists() else model)}"]


def prompt_choice(task: str, prompt: str | None) -> list[str]:
    """Overrides for a choice of `conf/prompt`, a text, or the one that belongs to the task.

    Raises:
        UserError: none was given, and none belongs to the task.
    """
    name = SEED_PROMPTS.get(task) if prompt is None else prompt
    if name is None:
        raise UserError(f"task={task} has no seed prompt of its own here. Give one: --prompt 'TEXT', or a choice.")
    if (conf_dir() / "prompt" / f"{name}.yaml").exists():
        return [f"prompt={name}"]
    return ["prompt=custom", f"prompt.text={quoted(name)}"]


def quoted(text: str) -> str:
    """As a value in Hydra's grammar."""
    return QuotedString(text=text, quote=Quote.single).with_quotes()


def variant_of(config: OptimizeConfig) -> str | None:
    """What embedgrad alone depends on, in full: the product's defaults may become others.

    Trust region, and objective, averaging and token dropout where they are used; `gold` is what all methods train for.
    """
    region, objective = config.trust_region, config.objective
    limits = {"ball": [f"ball {region.radius:g}"], "penalty": [f"penalty {region.weight:g}"], "none": []}
    parts = limits[region.kind]
    if objective.name == "choice":
        parts.append(f"choice {objective.choice_weight:g}, gold {objective.gold_weight:g}")
    elif objective.name not in (None, "gold"):
        parts.append(objective.name)
    used = {name: getattr(config.train, name) for name in OURS_IN_TRAINING}
    parts += [f"{name.replace('_', ' ')} {value:g}" for name, value in used.items() if value]
    return ", ".join(parts) or None
