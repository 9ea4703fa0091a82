"""What is minimised: a short module per objective, with its equation. What they need is computed in `core.passes`."""

from __future__ import annotations

from collections.abc import Sequence

from embedgrad_cli.config.schema import OBJECTIVES, ObjectiveConfig
from embedgrad_cli.config.task_schema import TaskConfig
from embedgrad_cli.core.objectives.choice import Choice, row_choices
from embedgrad_cli.core.objectives.distill import Distill, SoftTargets
from embedgrad_cli.core.objectives.gold import Gold
from embedgrad_cli.core.objectives.masked_gold import MaskedGold
from embedgrad_cli.core.objectives.objective import Labels, Objective, Passes
from embedgrad_cli.core.objectives.reward import Reward, RowAnswers, leave_one_out
from embedgrad_cli.core.text.answer_tokens import encode_choices
from embedgrad_cli.core.text.encoding import Row
from embedgrad_cli.core.text.template import PromptTemplate

__all__ = [
    "Choice",
    "Distill",
    "Gold",
    "Labels",
    "MaskedGold",
    "Objective",
    "Passes",
    "Reward",
    "RowAnswers",
    "SoftTargets",
    "leave_one_out",
    "make_objective",
]


def make_objective(
    config: ObjectiveConfig, task: TaskConfig, rows: Sequence[Row], prompt_template: PromptTemplate
) -> Objective:
    """The objective that these settings name, or the one of the task's kind, for the training rows.

    Of one whose targets are made during the run (`training.targets`) it is what suits those that the data has.
    """
    if (config.name or OBJECTIVES[task.kind]) != "choice":
        return Gold()
    choices = {names: encode_choices(names, prompt_template) for names in {row.choices for row in rows}}
    return Choice(row_choices(rows, choices, task.score), config.choice_weight, config.gold_weight)
