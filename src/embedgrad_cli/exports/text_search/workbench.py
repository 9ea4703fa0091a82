"""An artifact's own model and task, and any prompts, as vectors or as texts, on the same rows of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from embedgrad_cli.config.build import build, merge
from embedgrad_cli.config.compose import Composer
from embedgrad_cli.config.fields import prompt_numbers, seeds_of
from embedgrad_cli.config.schema import EvaluateConfig, ExportConfig, TemplateConfig
from embedgrad_cli.core.model.device import pick_device
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.model.load import load_model
from embedgrad_cli.core.prompt.artifact import (
    Artifact,
    check_fingerprint,
    told_as_in_training,
    warn_quantization,
    warn_undated,
)
from embedgrad_cli.core.prompt.nearest_text import one_text_per_slot
from embedgrad_cli.core.text.encoding import Encoded, encode
from embedgrad_cli.core.text.few_shot import shown_template
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.errors import ConfigError, DataError
from embedgrad_cli.evaluation.answer_log import Answer, AnswerLog, Progress
from embedgrad_cli.evaluation.answers import answer_arms
from embedgrad_cli.evaluation.arms import ArmPrompt, ArmSet, build_arms
from embedgrad_cli.evaluation.overlap import check_overlap
from embedgrad_cli.storage.record import Json
from embedgrad_cli.tasks.load import Row, Splits, load

OWN_DATA = "Give the data that the prompt was made with: data_dir=DIR."
Texts = list[str]  # one per slot


@dataclass
class Measurement:
    """What is needed to try prompts on the task that an artifact was made for.

    `template` holds the task's worked examples and one text per slot; `seed_texts` are the seed's in its order.
    """

    config: EvaluateConfig
    splits: Splits
    model: LanguageModel
    template: TemplateConfig
    seed_texts: Texts
    shares_trunk: bool

    @classmethod
    def open(cls, config: ExportConfig, artifact: Artifact) -> Measurement:
        """Load the task's rows and the model.

        Raises:
            ConfigError: the task's settings or its place are wrong.
            DataError: its rows are, or the data is another one and tests on rows that trained the prompt.
            ModelError: the model cannot be loaded.
            ArtifactError: it is not the artifact's.
        """
        settings = evaluate_config(config, artifact.metadata.settings)
        try:
            splits = load(settings.task, settings.seed)
        except DataError as error:
            raise DataError(_own_key(str(error))) from None
        if artifact.metadata.demonstrations:  # which are no training rows, for the search either
            shown = {example.query for example in artifact.metadata.demonstrations}
            splits = splits.without_demonstrations([row for row in splits.train if row.query in shown])
        check_overlap(splits, "test", {config.artifact: artifact}, "error", OWN_DATA)
        told = told_as_in_training(settings.model, artifact.metadata)
        model = load_model(told, pick_device(settings.device))
        check_fingerprint(artifact, model, config.artifact)
        warn_quantization(artifact, model, config.artifact)
        if told.chat_template_date is None:
            warn_undated(artifact, model, config.artifact)
        artifact.prompt.to(model.device)
        template = shown_template(settings, splits)
        numbered = one_text_per_slot(template)
        contents = [m.content for m in template.messages] if model.is_chat else [template.text]
        seeds = seeds_of(settings.prompt)
        seed_texts = [seeds[number] for content in contents for number in prompt_numbers(content)]
        arm = {"seed": ArmPrompt(tuple(seed_texts))}
        tried = build_arms(splits.validation, model, numbered, settings.task, arm).arms["seed"]
        return cls(settings, splits, model, numbered, seed_texts, tried.forward.shares_trunk)

    def build_arms(self, rows: Sequence[Row], prompts: Mapping[str, ArmPrompt]) -> ArmSet:
        """The rows with each of these prompts, with one text per slot."""
        return build_arms(rows, self.model, self.template, self.config.task, prompts, self.shares_trunk)

    def encode(self, rows: Sequence[Row], texts: Texts) -> Encoded:
        """The rows with these texts in the slots, and the targets that a loss is taken on."""
        task = self.config.task
        prompt_template = PromptTemplate(self.template, texts, self.model.tokenizer, self.model.is_chat)
        append_end_token = task.kind == "generation"
        return encode(rows, prompt_template, self.model, append_end_token=append_end_token, too_long=task.too_long)

    def answer(self, arm_set: ArmSet, progress: Callable[[str, int], Progress]) -> dict[str, list[list[Answer]]]:
        """Let every arm answer every row."""
        return answer_arms(arm_set, self.config.task, self.config.evaluation.batch_size, AnswerLog(), progress)


def evaluate_config(config: ExportConfig, recorded: Json) -> EvaluateConfig:
    """The settings of `embedgrad evaluate` for the artifact's own task, its places replaced by those of the export.

    What the artifact's version did not know has the defaults of `conf/`.

    Raises:
        ConfigError: holds every problem.
    """
    plain = Composer().settings("evaluate")
    for part in ("task", "evaluation"):
        plain[part] = merge(plain[part], recorded.get(part, {}))
    plain["task"]["overlap"] = "error"  # never the artifact's to say
    plain |= {key: recorded[key] for key in ("seed", "template", "prompt")}
    plain |= {"model": vars(config.model), "artifact": config.artifact, "output_dir": config.output_dir}
    plain |= {"device": config.device, "log_level": config.log_level}
    if config.data_dir:
        plain["task"]["data_dir"] = config.data_dir
    built, problems = build("evaluate", plain)
    if not isinstance(built, EvaluateConfig):
        raise ConfigError([_recorded_problem(problem, config.artifact) for problem in problems])
    return built


def _recorded_problem(problem: str, artifact: str) -> str:
    """With what recorded the setting at fault, and whether an export has one that replaces it."""
    replaced = problem.startswith(("task.data_dir:", "task.hub."))
    elsewhere = "" if replaced else " An export has no setting for it; `embedgrad evaluate` has."
    return f"{_own_key(problem)} It was recorded by artifact={artifact}.{elsewhere}"


def _own_key(message: str) -> str:
    """What a message about a task says of its folder, with the key that an export has for it."""
    return message.replace("task.data_dir=", "data_dir=")
