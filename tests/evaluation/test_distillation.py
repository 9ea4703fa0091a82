"""What counts as the teacher's answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from embedgrad_cli.evaluation.distillation import distillation_of


def outcomes(*extracted: str | None) -> list[list[Any]]:
    answer = SimpleNamespace(seconds=1.0)
    return [[SimpleNamespace(extracted=one, correct=one == "yes", answer=answer)] for one in extracted]


def test_two_answers_without_anything_to_grade_are_not_the_same_answer() -> None:
    arm: Any = SimpleNamespace(
        examples=[SimpleNamespace(tokens=[1, 2])], prompt=SimpleNamespace(slots=SimpleNamespace(num_tokens=2))
    )
    found = distillation_of(
        dict.fromkeys(("seed", "teacher", "optimized"), arm),
        {
            "seed": outcomes(None, None, None, None),
            "teacher": outcomes("yes", "no", None, None),
            "optimized": outcomes("yes", "no", None, "no"),
        },
    )
    assert found.agreement == 2 / 4
