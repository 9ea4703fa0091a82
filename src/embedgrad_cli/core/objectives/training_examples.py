"""The rows of train as examples: with their targets, and with room for all that the objective computes of them."""

from __future__ import annotations

from collections.abc import Sequence

from embedgrad_cli.config.task_schema import TaskConfig
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.objectives.objective import Objective
from embedgrad_cli.core.text.encoding import Encoded, Renderings, Row, encode
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.errors import DataError


def training_examples(
    rows: Sequence[Row],
    prompt_template: PromptTemplate,
    model: LanguageModel,
    task: TaskConfig,
    objective: Objective,
    renderings: Renderings | None = None,
) -> Encoded:
    """`encode` as a run of this task and objective does.

    Raises:
        TemplateError: as `encode`.
        DataError: a row does not fit the model's context, or with `task.too_long=skip` none does.
    """
    encoded = encode(
        rows,
        prompt_template,
        model,
        append_end_token=task.kind == "generation",
        reserve=objective.longest,
        too_long=task.too_long,
        renderings=renderings,
    )
    if not encoded.examples:
        raise DataError(
            f"task {task.name}: no training example fits the model's context of {model.max_length} tokens, so "
            "there is nothing to train on. Take a model with a longer context, or shorter rows."
        )
    return encoded
