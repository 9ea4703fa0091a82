"""Where the targets of a run come from: a short module per source. What is minimised on them is `core.objectives`."""

from __future__ import annotations

from embedgrad_cli.training.targets.targets import Material, Targets
from embedgrad_cli.training.targets.written import Written

__all__ = ["Material", "Targets", "Written", "make_targets"]


def make_targets(material: Material) -> Targets:
    """The targets that the settings name.

    Raises:
        DataError, TemplateError, ArtifactError, UserError: they cannot be made of this data.
    """
    return Written(material.config, material.examples, material.objective)
