"""Where the targets of a run come from: a short module per source. What is minimised on them is `core.objectives`."""

from __future__ import annotations

from embedgrad_cli.evaluation.arms import ArmPrompt
from embedgrad_cli.evaluation.distillation import TEACHER
from embedgrad_cli.training.targets.distilled import Distilled
from embedgrad_cli.training.targets.masked import Masked
from embedgrad_cli.training.targets.rollouts import Rollouts
from embedgrad_cli.training.targets.targets import Material, Targets
from embedgrad_cli.training.targets.verified import Verified
from embedgrad_cli.training.targets.written import Written

__all__ = ["Material", "Targets", "Written", "make_targets", "tested_prompts"]


def make_targets(material: Material) -> Targets:
    """The targets that the settings name.

    Raises:
        DataError, TemplateError, ArtifactError, UserError: they cannot be made of this data.
    """
    settings = material.config.objective
    targets: Targets = Written(material.config, material.examples, material.objective)
    if settings.name == "distill":
        targets = Distilled(material)
    if settings.name == "verified":
        targets = Verified(material)
    if settings.name == "reward":
        targets = Rollouts(material)
    return targets if settings.mask is None else Masked(material, targets, settings.mask)


def tested_prompts(targets: Targets) -> dict[str, ArmPrompt]:
    """Prompts that the test compares beside the run's own: a teacher that is to be replaced."""
    return {TEACHER: targets.teacher.prompt} if isinstance(targets, Distilled) else {}
