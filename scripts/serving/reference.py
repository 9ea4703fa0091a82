"""What embedgrad itself answers, as token ids."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from embedgrad_cli.config.build import build
from embedgrad_cli.config.fields import seeds_of
from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.core.model.device import pick_device
from embedgrad_cli.core.model.load import load_model
from embedgrad_cli.core.passes.scoring import generate
from embedgrad_cli.core.prompt.artifact import load_artifact
from embedgrad_cli.core.text.few_shot import shown_template
from embedgrad_cli.evaluation.arms import ArmPrompt, build_arms
from embedgrad_cli.tasks import graders
from embedgrad_cli.tasks.demonstrations import load_for
from serving.compare import Reference


def reference_of(folder: Path, name: str = "optimized") -> Reference:
    """Answer the test rows of a run with one of its arms, in the way `embedgrad evaluate` does."""
    config, problems = build("optimize", yaml.safe_load((folder / "config.yaml").read_text()))
    if not isinstance(config, OptimizeConfig):
        raise ValueError(problems)
    config, splits = load_for(config)
    model = load_model(config.model, pick_device("cpu"))
    trained, seeds = load_artifact(folder / "prompt.safetensors").prompt, seeds_of(config.prompt)
    template = shown_template(config, splits)
    prompts = {"none": ArmPrompt(), "seed": ArmPrompt(seeds), "optimized": ArmPrompt(seeds, trained)}
    arm = build_arms(splits.test, model, template, config.task, {name: prompts[name]}).arms[name]
    answers = generate(arm.forward, arm.examples, arm.prompt, config.task.max_new_tokens, config.evaluation.batch_size)
    grader = graders.get(config.task.grader, config.task.choices)
    reported = None
    if config.task.kind == "generation" and not config.task.stop:
        reported = json.loads((folder / "results.json").read_text())["arms"][name]["correct"]
    return Reference(splits.test, arm.examples, [answer for (answer,) in answers], model, arm.prompt, grader, reported)
