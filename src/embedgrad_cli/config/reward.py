"""What `objective=reward` needs, and the function that `objective.reward` names. Nothing heavy is imported."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from embedgrad_cli.config.schema import ObjectiveConfig, TaskConfig, TrainConfig
from embedgrad_cli.errors import UserError

FUNCTION = re.compile(r"(\w+(?:\.\w+)*):(\w+)")
HOW = "Give MODULE:FUNCTION of a function f(query, answer, target) that returns a number."


def check_reward(objective: ObjectiveConfig, task: TaskConfig) -> list[str]:
    """Answers must be generated, and must be able to differ; where the reward is no objective it has no function."""
    if objective.name != "reward":
        if objective.reward is None:
            return []
        return ["objective.reward: it is what objective=reward goes by. Leave it out, or give objective=reward."]
    problems = []
    if task.kind == "choice":
        problems.append(
            f"objective: reward draws answers and grades them, but task {task.name} ranks the choices of a row "
            "(task.kind=choice). Give objective=choice, or objective=gold."
        )
    if objective.samples is None or objective.samples < 2:
        problems.append(
            f"objective.samples: {objective.samples} is not 2 or more, and the reward of an answer is compared with "
            "those of others to its row. Give objective.samples=4."
        )
    if not objective.temperature:
        problems.append(
            f"objective.temperature: at {objective.temperature} all answers to a row are the same, and none is better "
            "than the others. Give objective.temperature=1."
        )
    if objective.teacher is not None:
        problems.append("objective.teacher: reward learns from the answers of the prompt in training. Leave it out.")
    if objective.reward is not None and not FUNCTION.fullmatch(objective.reward):
        problems.append(f"objective.reward: {objective.reward!r} does not name a function. {HOW}")
    return problems


def check_whole_prompt(objective: ObjectiveConfig, train: TrainConfig) -> list[str]:
    """Answers are drawn with the whole prompt, so the gradient is that of the whole prompt."""
    if objective.name != "reward" or not train.token_dropout:
        return []
    return [
        "train.token_dropout: objective=reward draws its answers from the whole prompt, and a prompt with tokens left "
        "out would not have given them. Leave it out."
    ]


def reward_function(name: str) -> Callable[..., Any]:
    """The function that `objective.reward` names; its module is imported, from the working directory as well.

    Raises:
        UserError: there is none, or it cannot be called with query, answer and target.
    """
    module_name, _, function_name = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last, so that nothing there stands in for a library
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a module of the user's may raise anything
        raise UserError(
            f"objective.reward={name}: the module {module_name} cannot be imported: {type(error).__name__}: {error}. "
            f"{HOW} Its module is looked for where Python finds others, and in {here}."
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UserError(
            f"objective.reward={name}: {module.__file__} has no function {function_name}. Functions in it are "
            f"{', '.join(_functions(module)) or 'none'}. {HOW}"
        )
    try:
        inspect.signature(function).bind(query="", answer="", target="")
    except (TypeError, ValueError) as error:
        raise UserError(
            f"objective.reward={name}: it cannot be called with query, answer and target by name: {error}. {HOW}"
        ) from error
    return function


def _functions(module: Any) -> list[str]:
    return [name for name, value in vars(module).items() if inspect.isfunction(value) and not name.startswith("_")]
