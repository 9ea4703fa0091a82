"""Saved prompts among the arms: which files an evaluation names, whether they fit, and what stands in each arm."""

from __future__ import annotations

import logging
from pathlib import Path

from embedgrad_cli.config.arm_spec import parse_arm
from embedgrad_cli.config.fields import as_texts, seeds_of
from embedgrad_cli.config.schema import EvaluateConfig, TemplateConfig
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.prompt.artifact import (
    Artifact,
    check_fingerprint,
    load_artifact,
    recorded_template,
    warn_quantization,
    warn_undated,
)
from embedgrad_cli.evaluation.arms import ArmPrompt

log = logging.getLogger(__name__)


def load_artifacts(config: EvaluateConfig) -> dict[str, Artifact]:
    """The artifacts that arms are made of, by the arm's name.

    Raises:
        ArtifactError: one cannot be read.
    """
    specs = [parse_arm(item) for item in config.arms]
    files = {spec.name: spec.value for spec in specs if spec.kind == "artifact"}
    if config.artifact is not None and any(spec.kind == "optimized" for spec in specs):
        files["optimized"] = config.artifact
    return {name: load_artifact(Path(file).expanduser()) for name, file in files.items()}


def arm_prompts(config: EvaluateConfig, artifacts: dict[str, Artifact]) -> dict[str, ArmPrompt]:
    """What every arm puts into the template. A file brings its own seed text; `optimized` stands in prompt.text's."""
    prompts = {}
    for item in config.arms:
        spec = parse_arm(item)
        artifact = artifacts.get(spec.name)
        if artifact is None:
            texts = {"seed": seeds_of(config.prompt), "text": (spec.value,)}
            prompts[spec.name] = ArmPrompt(texts.get(spec.kind), is_bare=spec.kind == "bare")
            continue
        text = artifact.metadata.seed.text
        seeds = seeds_of(config.prompt) if spec.kind == "optimized" else as_texts(text)
        prompts[spec.name] = ArmPrompt(seeds, artifact.prompt)
    return prompts


def file_of(config: EvaluateConfig, arm: str) -> str:
    """The artifact's file of an arm made of one."""
    return str(config.artifact) if arm == "optimized" else arm


def check_artifacts(
    config: EvaluateConfig,
    artifacts: dict[str, Artifact],
    model: LanguageModel,
    template: TemplateConfig,
    has_day: bool,
) -> None:
    """Refuse artifacts of another model, warn of another template; what remains goes to the model's device.

    Args:
        template: with its worked examples.
        has_day: the day that the chat template is told was given, or recorded.

    Raises:
        ArtifactError: one was made for another model.
    """
    for name, artifact in artifacts.items():
        check_fingerprint(artifact, model, file_of(config, name))
        warn_quantization(artifact, model, file_of(config, name))
        if not has_day:
            warn_undated(artifact, model, file_of(config, name))
        if not (_is_of_training(artifact, template, model) and _is_told_the_same(artifact, config, model)):
            log.warning("the arm %s was optimised in another template than the one all arms stand in here", name)
        artifact.prompt.to(model.device)


def _is_of_training(artifact: Artifact, template: TemplateConfig, model: LanguageModel) -> bool:
    """Whether an artifact stands in the template that it was optimised in, worked examples included.

    Messages and text are two templates, of which a prompt stands in one: the other may say anything.
    """
    trained_in, kind = recorded_template(artifact.metadata), artifact.metadata.config.model.template
    was_chat = bool(model.tokenizer.chat_template) if kind == "auto" else kind == "chat"
    if was_chat != model.is_chat:
        return False
    return trained_in.messages == template.messages if was_chat else trained_in.text == template.text


def _is_told_the_same(artifact: Artifact, config: EvaluateConfig, model: LanguageModel) -> bool:
    """Whether the chat template has the arguments and the day of training, as far as that is known."""
    day, told = artifact.metadata.model.chat_template_date, artifact.metadata.config.model.chat_template_kwargs
    if not model.is_chat:
        return True
    return (told or {}) == (config.model.chat_template_kwargs or {}) and day in (None, model.chat_template_date)
