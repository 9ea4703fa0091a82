"""What embedgrad itself answers, as token ids."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from embedgrad_cli.config.build import build
from embedgrad_cli.config.fields import seeds_of
from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.core.model.language_model import load_model, pick_device
from embedgrad_cli.core.passes.scoring import generate
from embedgrad_cli.core.prompt.artifact import load_artifact
from embedgrad_cli.core.text.few_shot import with_examples
from embedgrad_cli.evaluation.arms import ArmPrompt, build_arms
from embedgrad_cli.tasks import graders
from embedgrad_cli.tasks.demonstrations import load_for
from serving.compare import Reference


def reference_of(folder: Path) -> Reference:
    """Answer the test rows of a run, in the way `embedgrad evaluate` does."""
    config, problems = build("optimize", yaml.safe_load((folder / "config.yaml").read_text()))
    if not isinstance(config, OptimizeConfig):
        raise ValueError(problems)
    config, splits = load_for(config)
    model = load_model(config.model, pick_device("cpu"))
    prompt = load_artifact(folder / "prompt.safetensors").prompt
    template = with_examples(config.template, splits.fewshot, config.task.fewshot_style)
    prompts = {"optimized": ArmPrompt(seeds_of(config.prompt), prompt)}
    arm = build_arms(splits.test, model, template, config.task, prompts).arms["optimized"]
    answers = generate(arm.forward, arm.examples, prompt, config.task.max_new_tokens, config.evaluation.batch_size)
    grader = graders.get(config.task.grader, config.task.choices)
    reported = None
    if config.task.kind == "generation" and not config.task.stop:
        reported = json.loads((folder / "results.json").read_text())["arms"]["optimized"]["correct"]
    return Reference(splits.test, arm.examples, [answer for (answer,) in answers], model, prompt, grader, reported)
