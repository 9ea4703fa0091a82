r"""Graders: find the answer in a text, and compare it with the gold answer.

grader = graders.get("last-number")
grader.gold("48 / 2 = 24\n#### 1,224.00")  # "1224"
grade = grader.judge("1224", "The answer is $1,224.")
grade.strict  # Extraction(extracted=None, correct=False): there is no "####"
grade.lenient  # Extraction(extracted="1224", correct=True)

The strict extraction reads the form that the task's own training targets have, and nothing else. The lenient one also
takes an answer in another form. Which of the two counts as correct is `task.extraction`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from embedgrad_cli.errors import ConfigError
from embedgrad_cli.tasks.graders.base import COMPUTING_SECONDS, Extraction, Grade, Grader
from embedgrad_cli.tasks.graders.boxed import Boxed
from embedgrad_cli.tasks.graders.label import Label
from embedgrad_cli.tasks.graders.number import LastNumber

__all__ = ["COMPUTING_SECONDS", "Boxed", "Extraction", "Grade", "Grader", "Label", "LastNumber", "get"]

_GRADERS: dict[str, Callable[[tuple[str, ...]], Grader]] = {
    "last-number": lambda choices: LastNumber(),
    "boxed": lambda choices: Boxed(),
    "label": Label,
}


def get(name: str, choices: Sequence[str] | None = None) -> Grader:
    """The grader of that name. `choices` are the labels that `label` accepts; none are any.

    Raises:
        ConfigError: there is no grader of that name.
    """
    if name not in _GRADERS:
        raise ConfigError([f"task.grader={name} is not a grader. There are: {', '.join(_GRADERS)}."])
    return _make(name, tuple(choices or ()))


@lru_cache(maxsize=256)  # rows may have choices of their own, mostly the same few
def _make(name: str, choices: tuple[str, ...]) -> Grader:
    return _GRADERS[name](choices)
