"""The function of the user's that `objective.reward` names. Nothing heavy is imported."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from embedgrad_cli.errors import UserError

FUNCTION = re.compile(r"(\w+(?:\.\w+)*):(\w+)")
HOW = "Give MODULE:FUNCTION of a function f(query, answer, target) that returns a number."


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
