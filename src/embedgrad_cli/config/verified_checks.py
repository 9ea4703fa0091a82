"""Checks of `objective=verified` and of `objective.mask`: what they need. No torch, no network."""

from __future__ import annotations

from embedgrad_cli.config.schema import OBJECTIVES, ObjectiveConfig, TaskConfig, TrainConfig

NEEDED = ("samples", "temperature", "keep", "rounds", "unsolved")
MASKED = ("gold", "verified")


def check_verified(objective: ObjectiveConfig, task: TaskConfig) -> list[str]:
    """Answers must be generated, be able to differ, and all settings be there."""
    if objective.name != "verified":
        return []
    if task.kind == "choice":
        return [
            f"objective: verified trains on answers that were generated and graded, but those of task {task.name} are "
            "choices (task.kind=choice). Give objective=choice or objective=gold; where answers are generated, "
            "task.kind=generation."
        ]
    missing = [name for name in NEEDED if getattr(objective, name) is None]
    if missing:
        return [
            f"objective.{missing[0]}: objective.name=verified needs a value here. Give objective=verified, which has "
            "one for each of its settings."
        ]
    if objective.temperature == 0 and (objective.samples or 1) > 1:
        return [
            f"objective.samples: {objective.samples} answers at objective.temperature=0 are all the same. Give a "
            "temperature, for instance objective.temperature=0.7, or objective.samples=1."
        ]
    return []


def check_rounds(objective: ObjectiveConfig, train: TrainConfig) -> list[str]:
    """Each round has a step."""
    if objective.name != "verified" or (objective.rounds or 1) <= max(train.steps, 1):
        return []
    return [
        f"objective.rounds: {objective.rounds} rounds cannot each have a step of train.steps={train.steps}. Give fewer "
        "rounds or more steps."
    ]


def check_mask(objective: ObjectiveConfig, task: TaskConfig) -> list[str]:
    """Only where the loss is a sum over target tokens can some be left out."""
    name = objective.name or OBJECTIVES[task.kind]
    if objective.mask is None or name in MASKED:
        return []
    return [
        f"objective.mask: objective={name} has no target tokens to leave out. Leave it out, or give objective=gold"
        f"{' or objective=verified' * (task.kind == 'generation')}."
    ]
