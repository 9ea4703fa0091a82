"""What answers to training rows are worth: by the task's grader, or by a function of the user's."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from embedgrad_cli.config.reward import reward_function
from embedgrad_cli.config.task_schema import TaskConfig
from embedgrad_cli.errors import UserError
from embedgrad_cli.evaluation.outcomes import grade_texts
from embedgrad_cli.storage.interrupts import stop_if_asked
from embedgrad_cli.tasks.load import Row

Texts = Sequence[Sequence[str]]  # the answers to each row
Rewards = Callable[[Sequence[Row], Texts], list[list[float]]]


def make_rewards(name: str | None, task: TaskConfig) -> Rewards:
    """What rewards answers.

    Args: name: `objective.reward`; None: a right answer has the reward 1, by the extraction that counts, others 0.

    Raises:
        UserError: there is no such function.
    """
    if name is None:
        return lambda rows, texts: _graded(rows, texts, task)
    function = reward_function(name)
    return lambda rows, texts: [
        [_asked(function, name, row, text) for text in of_row] for row, of_row in zip(rows, texts, strict=True)
    ]


def _graded(rows: Sequence[Row], texts: Texts, task: TaskConfig) -> list[list[float]]:
    """As the test grades."""
    return [[float(outcome.correct) for outcome in of_row] for of_row in grade_texts(rows, texts, task)]


def _asked(function: Callable[..., Any], name: str, row: Row, text: str) -> float:
    """What the user's function says of one answer.

    Raises:
        UserError: it raised, or returned no finite number.
    """
    stop_if_asked()
    try:
        value = function(query=row.query, answer=text, target=row.target)
    except Exception as error:  # the user's code may raise anything
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f" ({Path(last.filename).name}, line {last.lineno})"
        raise _no_reward(name, row, text, f"raised {type(error).__name__}: {error}{place}") from error
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)
    except Exception:
        number = math.nan
    if not math.isfinite(number):
        raise _no_reward(name, row, text, f"returned {value!r:.80}")
    return number


def _no_reward(name: str, row: Row, text: str, what: str) -> UserError:
    return UserError(
        f"objective.reward={name}: for an answer to the row {row.id} it {what}. It must return a finite number. The "
        f"answer was {text!r:.200}. Mend it: the steps before are kept, and the same command goes on from them."
    )
