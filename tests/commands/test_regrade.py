"""Answers that are graded again: all of them, or it is said which are missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from embedgrad_cli.commands.regrade import _by_arm, _Known
from embedgrad_cli.errors import UserError
from embedgrad_cli.storage.engine_record import EngineRecord
from embedgrad_cli.storage.results_record import Measured, Results
from embedgrad_cli.storage.sample_records import Sample
from embedgrad_cli.tasks.rows import Row

ROWS = [Row(f"test:{number}", "q", "a", "a") for number in range(3)]
SAME = {"output": "a", "prompt_hash": "p", "row_hash": "r", "query": "q", "answer": "a", "sample": 0, "tokens": 1}
LINES = [Sample(id=row.id, arm=arm, seconds=0.1, **SAME) for row in ROWS for arm in ("none", "seed")]  # type: ignore[arg-type]


def test_every_arm_has_its_answers() -> None:
    assert {arm: len(answers) for arm, answers in _by_arm(LINES, ROWS, Path("samples.jsonl")).items()} == {
        "none": 3,
        "seed": 3,
    }


def test_who_answered_is_still_said() -> None:
    engine = EngineRecord(name="vllm", version="0.0.0")
    graded = Results(task="t", split="test", num_examples=1, model="m", arms={}, comparison=None)
    known = _Known(Measured.of(replace(graded, engine=engine)), None, None, None, None)
    assert known.completed(graded, "digest").engine == engine


@pytest.mark.parametrize("lines", [LINES[:-1], [replace(LINES[0], arm="other"), *LINES[1:]]], ids=["cut", "renamed"])
def test_a_missing_answer_is_named(lines: list[Sample]) -> None:
    with pytest.raises(UserError, match=r"samples\.jsonl has no answer of the arm '\w+' to the row test:\d"):
        _by_arm(lines, ROWS, Path("samples.jsonl"))


def test_a_file_without_answers_is_named() -> None:
    with pytest.raises(UserError, match=r"samples\.jsonl holds no answers"):
        _by_arm([], [], Path("samples.jsonl"))
