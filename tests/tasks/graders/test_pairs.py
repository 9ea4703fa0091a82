"""The table of answers whose grade is known, `pairs.yaml`, by the kinds of fault that public reports name."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedgrad_cli.tasks import graders

PAIRS = Path(__file__).with_name("pairs.yaml")


def pairs() -> Iterator[Any]:
    for group in yaml.safe_load(PAIRS.read_text(encoding="utf-8")):
        for gold, output, verdict in group["pairs"]:
            name = f"{group['grader']}-{group['kind']}-{gold}-{output}"
            yield pytest.param(group["grader"], group.get("choices"), gold, output, verdict, id=name)


def test_there_are_as_many_as_promised() -> None:
    assert len({parameters.id for parameters in pairs()}) >= 300


@pytest.mark.parametrize(("grader", "choices", "gold", "output", "verdict"), pairs())
def test_verdict(grader: str, choices: list[str] | None, gold: str, output: str, verdict: str) -> None:
    found = graders.get(grader, choices).judge(gold, output.replace("⏎", "\n")).lenient
    assert ("right" if found.correct else "invalid" if found.extracted is None else "wrong") == verdict, found


@pytest.mark.parametrize(
    ("grader", "choices", "output", "strict"),
    [
        ("boxed", None, r"<think>\boxed{5}</think> The answer is 6.", None),
        ("boxed", None, r"<think>\boxed{5}</think> \boxed{6}", "6"),
        ("boxed", None, r"<answer>6</answer>", None),
        ("last-number", None, "<think>#### 5</think>\n#### 6", "6"),
        ("last-number", None, "#### 70 000", "70000"),
        ("last-number", None, r"\boxed{6}", None),
        ("label", ("(A)", "(B)"), "<think>\n(A)\n</think>\n\n(B)", "(B)"),
        ("label", ("(A)", "(B)"), r"\boxed{B}", None),
    ],
)
def test_strictly_only_the_form_of_the_targets_counts_behind_the_thoughts(
    grader: str, choices: tuple[str, ...] | None, output: str, strict: str | None
) -> None:
    assert graders.get(grader, choices).strict(output) == strict


REPEATED = [
    "answer is ",
    "Answer: ",
    "$18 every ",
    "1,",
    "7",
    "1/",
    "(A) ",
    "*",
    "\\boxed{",
    "<think>",
    "</think>",
    " ",
]


@pytest.mark.parametrize("repeated", REPEATED)
@pytest.mark.parametrize(("grader", "choices"), [("last-number", None), ("boxed", None), ("label", ("(A)", "(B)"))])
def test_a_model_that_repeats_itself_is_graded_soon(
    grader: str, choices: tuple[str, ...] | None, repeated: str
) -> None:
    """Also a number of more digits than Python makes an integer of."""
    output, started = "The answer is " + repeated * (8000 // len(repeated)), time.process_time()
    graders.get(grader, choices).judge("5", output)
    assert time.process_time() - started < 10
