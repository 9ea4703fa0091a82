"""Demonstrations: training rows that stand, as text, in the seed prompt, and whose tokens are trained with it.

They leave the training split, so that no row is trained on with its own answer in the prompt. What follows sees an
ordinary seed text. Worked examples (`task.fewshot`) belong to the template instead, and stay the words they are.

config, splits = load_for(config)
config.prompt.text  # "Decide whether … positive or negative.\\n\\na gem\\npositive\\n\\ntedious\\nnegative"
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, islice, zip_longest
from typing import TypeVar

from embedgrad_cli.config.fields import DEMONSTRATIONS_PLACE, PLACE
from embedgrad_cli.config.schema import EvaluateConfig, OptimizeConfig
from embedgrad_cli.errors import DataError
from embedgrad_cli.tasks.load import load
from embedgrad_cli.tasks.rows import Row
from embedgrad_cli.tasks.splits import HashOrder, Splits

log = logging.getLogger(__name__)

C = TypeVar("C", OptimizeConfig, EvaluateConfig)


def load_for(config: C) -> tuple[C, Splits]:
    """The rows of a run, and its config with the demonstrations in the seed's text, which is final then.

    The same data, settings and seed give the same demonstrations. They are among the rows that `task.split.num_train`
    allows for. `Splits.hash` is the same with and without them: it counts them as rows of train.

    Raises:
        DataError: as `load`; or train has too few rows, or a demonstration holds a place of the template.
        ConfigError: the task's settings contradict themselves.
    """
    splits, count = load(config.task, config.seed), config.prompt.demonstrations
    if count is None or config.prompt.text is None:
        return config, splits
    _check_count(config.task.name, count, len(splits.train))
    drawn = _draw(splits.train, count, config.seed)
    _check_places(drawn)
    prompt = replace(config.prompt, text=_with_rows(config.prompt.text, drawn), demonstrations=None)
    log.info("demonstrations in the seed prompt, out of train: %s", ", ".join(row.id for row in drawn))
    return replace(config, prompt=prompt), splits.without_demonstrations(drawn)


def as_text(rows: Sequence[Row]) -> str:
    """Query and target of each row on a line of their own, with an empty line between rows."""
    return "\n\n".join(f"{row.query}\n{row.target}" for row in rows)


def _draw(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """So many rows in the seeded order; where rows have choices, one of each answer in turn while there are some."""
    by_answer = dict[str, list[Row]]()
    for row in HashOrder(seed).sorted(list(rows)):
        by_answer.setdefault(row.answer if row.choices else "", []).append(row)
    in_turn = chain.from_iterable(zip_longest(*by_answer.values()))
    return list(islice((row for row in in_turn if row is not None), count))


def _with_rows(text: str | list[str], rows: Sequence[Row]) -> str | list[str]:
    """The seed's text with the rows in their place; a single text that has none for them has them below it."""
    shown = as_text(rows)
    if isinstance(text, list):
        return [one.replace(DEMONSTRATIONS_PLACE, shown).strip() for one in text]
    placed = text if DEMONSTRATIONS_PLACE in text else f"{text}\n\n{DEMONSTRATIONS_PLACE}"
    return placed.replace(DEMONSTRATIONS_PLACE, shown).strip()


def _check_count(task: str, count: int, available: int) -> None:
    if count >= available:
        raise DataError(
            f"task {task}: prompt.demonstrations={count} rows are to be taken out of train for the seed prompt, and "
            f"train has only {available}, of which at least one has to be left. Give a smaller number, or more rows."
        )


def _check_places(rows: Sequence[Row]) -> None:
    for row in rows:
        text = f"{row.query}\n{row.target}"
        found = PLACE.search(text) or re.search(re.escape(DEMONSTRATIONS_PLACE), text)
        if found:
            raise DataError(
                f"the row {row.id}, drawn as a demonstration (prompt.demonstrations), holds {found.group()}, which is "
                f"a place of the template or of the prompt: {row.query[:60]!r}. Draw others with another seed=N, or "
                "write the examples into prompt.text yourself."
            )
