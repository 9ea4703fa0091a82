"""A prompt answers training rows, and its answers become targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from embedgrad_cli.config.fields import as_texts
from embedgrad_cli.config.teacher import is_artifact, teacher_text
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
    config, model = material.config, material.model
    if is_artifact(teacher):
        artifact = load_artifact(Path(teacher).expanduser())
        check_fingerprint(artifact, model, teacher)
        seed = artifact.metadata.seed.text
        prompt = ArmPrompt(as_texts(seed), artifact.prompt.to(model.device))
    else:
        prompt = ArmPrompt((teacher_text(teacher),))
    arm_set = build_arms(material.rows, model, material.template, config.task, {TEACHER: prompt})
    return arm_set.arms[TEACHER]


def as_target(answer: GeneratedAnswer, prompt_template: PromptTemplate) -> tuple[int, ...]:
    """The tokens of an answer up to what ended it: the end of its turn, or a stop string.

    An answer that was cut by its limit has no end, so a prompt is not taught to end there.
    """
    end = prompt_template.turn_end.token_id
    return (*answer.ids, end) if answer.ending == "end_of_turn" and end is not None else tuple(answer.ids)


def with_targets(example: Example, targets: Sequence[tuple[int, ...]]) -> list[Example]:
    """An example with each of these targets in place of its own; they are told apart by their ids."""
    return [replace(example, id=f"{example.id}#{number}", target=ids) for number, ids in enumerate(targets)]
