"""A prompt answers training rows, and its answers become targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from embedgrad_cli.config.fields import as_texts
from embedgrad_cli.config.teacher import is_artifact, teacher_text
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.passes.ending import GeneratedAnswer
from embedgrad_cli.core.prompt.artifact import check_fingerprint, load_artifact
from embedgrad_cli.core.text.encoding import Example
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.evaluation.arms import Arm, ArmPrompt, build_arms
from embedgrad_cli.training.targets.targets import Material

TEACHER = "objective.teacher"  # as messages name its arm


def teacher_arm(material: Material, teacher: str) -> Arm:
    """The training rows under the teacher's prompt, in the run's own template.

    Raises:
        UserError, ArtifactError: the teacher cannot be read, or was made for another model or template.
        DataError: a row does not fit the model's context behind it.
    """
    prompt = teacher_prompt(teacher, material.model)
    arm_set = build_arms(material.rows, material.model, material.template, material.config.task, {TEACHER: prompt})
    return arm_set.arms[TEACHER]


def teacher_prompt(teacher: str, model: LanguageModel) -> ArmPrompt:
    """What stands in the prompt's place when the teacher answers.

    Raises:
        UserError, ArtifactError: the teacher cannot be read, or was made for another model.
    """
    if not is_artifact(teacher):
        return ArmPrompt((teacher_text(teacher),))
    artifact = load_artifact(Path(teacher).expanduser())
    check_fingerprint(artifact, model, teacher)
    return ArmPrompt(as_texts(artifact.metadata.seed.text), artifact.prompt.to(model.device))


def as_target(answer: GeneratedAnswer, prompt_template: PromptTemplate) -> tuple[int, ...]:
    """The tokens of an answer up to what ended it: the end of its turn, or a stop string.

    An answer that was cut by its limit has no end, so a prompt is not taught to end there.
    """
    end = prompt_template.turn_end.token_id
    return (*answer.ids, end) if answer.ending == "end_of_turn" and end is not None else tuple(answer.ids)


def with_targets(example: Example, targets: Sequence[tuple[int, ...]]) -> list[Example]:
    """An example with each of these targets in place of its own; they are told apart by their ids."""
    return [replace(example, id=f"{example.id}#{number}", target=ids) for number, ids in enumerate(targets)]
