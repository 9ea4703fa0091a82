"""An artifact's own model and task, and any prompts, as vectors or as texts, on the same rows of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from embedgrad_cli.arms import Examination, Outcome, Progress, run_arms, seeds_of
from embedgrad_cli.config import build, conf_dir
from embedgrad_cli.core.artifact import Artifact, check_fingerprint
from embedgrad_cli.core.encoding import Encoded, encode
from embedgrad_cli.core.forward import can_share_trunk
from embedgrad_cli.core.model import LanguageModel, load_model, pick_device
from embedgrad_cli.core.reading import PROMPT_FIELD, one_text_per_slot
from embedgrad_cli.core.soft_prompt import SoftPrompt
from embedgrad_cli.core.template import Conversation
from embedgrad_cli.errors import ConfigError
from embedgrad_cli.schema import EvaluateConfig, ExportConfig, PromptConfig
from embedgrad_cli.tasks.data import Row, Splits, load

Texts = list[str]  # one per slot


@dataclass
class Measurement:
    """What is needed to try prompts on the task that an artifact was made for."""

    config: EvaluateConfig
    splits: Splits
    model: LanguageModel
    artifact: Artifact
    shares_trunk: bool = True

    @classmethod
    def open(cls, config: ExportConfig, artifact: Artifact) -> Measurement:
        """Load the task's rows and the model.

        Raises:
            ConfigError: the task's settings or its place are wrong.
            DataError: its rows are.
            ModelError: the model cannot be loaded.
            ArtifactError: it is not the artifact's.
        """
        settings = evaluate_config(config, artifact.metadata["config"])
        splits = load(settings.task, settings.seed)
        model = load_model(settings.model, pick_device(settings.device))
        check_fingerprint(artifact, model, config.artifact)
        artifact.prompt.to(model.device)
        measurement = cls(settings, splits, model, artifact)
        seed = SoftPrompt(artifact.prompt.slots, artifact.prompt.seed)
        measurement.shares_trunk = can_share_trunk(model, measurement.examine(splits.validation).prompted, seed)
        return measurement

    @property
    def seed_texts(self) -> Texts:
        """The seed's text slot by slot, in the template's order."""
        template, seeds = self.config.template, seeds_of(self.config.prompt)
        contents = [m.content for m in template.messages] if self.model.is_chat else [template.text]
        return [seeds[int(number or 0)] for content in contents for number in PROMPT_FIELD.findall(content)]

    def examine(self, rows: Sequence[Row], texts: Texts | None = None) -> Examination:
        """The rows with these texts in the slots; None is the seed's own text."""
        c, template, prompt = self.config, self.config.template, self.config.prompt
        if texts is not None:
            template, prompt = one_text_per_slot(template), PromptConfig(texts)
        return Examination(rows, self.model, template, prompt, c.task, self.shares_trunk)

    def encode(self, rows: Sequence[Row], texts: Texts) -> Encoded:
        """The rows with these texts in the slots, and the targets that a loss is taken on."""
        task = self.config.task
        template = one_text_per_slot(self.config.template)
        conversation = Conversation(template, texts, self.model.tokenizer, self.model.is_chat)
        ends_turn = task.kind == "generation"
        return encode(rows, conversation, self.model, ends_turn=ends_turn, too_long=task.too_long)

    def run(
        self, rows: Sequence[Row], texts: Mapping[str, Texts], progress: Callable[[str, int], Progress]
    ) -> tuple[list[Row], dict[str, list[Outcome]]]:
        """Answer the rows with `seed`, `optimized` and each of the texts.

        Returns: the rows that fit the model's context under every prompt, and each arm's outcomes on them.
        """
        for prompt in (None, *texts.values()):
            rows = self.examine(rows, prompt).rows
        vectors, size = self.artifact.prompt, self.config.evaluation.batch_size
        prompts: dict[str, SoftPrompt | None] = {"seed": SoftPrompt(vectors.slots, vectors.seed), "optimized": vectors}
        outcomes = run_arms(self.examine(rows), prompts, size, progress)
        for name, prompt in texts.items():
            examination = self.examine(rows, prompt)
            arm: dict[str, SoftPrompt | None] = {name: SoftPrompt.from_seed(examination.slots, self.model)}
            outcomes |= run_arms(examination, arm, size, progress)
        return list(rows), outcomes


def evaluate_config(config: ExportConfig, recorded: Mapping[str, Any]) -> EvaluateConfig:
    """The settings of `embedgrad evaluate` for the artifact's own task, its places replaced by those of the export.

    What the artifact's version did not know has the defaults of `conf/`.

    Raises:
        ConfigError: holds every problem.
    """
    plain: dict[str, Any] = {}
    for name in ("base", "problem", "evaluate"):
        plain |= yaml.safe_load((conf_dir() / f"{name}.yaml").read_text(encoding="utf-8"))
    plain = {key: value for key, value in plain.items() if key not in ("defaults", "hydra")}
    for part in ("task", "evaluation"):
        plain[part] |= recorded.get(part, {})
    plain |= {key: recorded[key] for key in ("seed", "template", "prompt")}
    plain |= {"model": vars(config.model), "artifact": config.artifact, "output_dir": config.output_dir}
    plain |= {"device": config.device, "log_level": config.log_level}
    if config.data_dir:
        plain["task"]["data_dir"] = config.data_dir
    built, problems = build("evaluate", plain)
    if not isinstance(built, EvaluateConfig):
        raise ConfigError([problem.replace("task.data_dir=", "data_dir=") for problem in problems])
    return built
