"""Graded answers, and how those are counted that could not be compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import optimize_config

from embedgrad_cli.evaluation.answer_log import Answer
from embedgrad_cli.evaluation.outcomes import grade_answers
from embedgrad_cli.evaluation.results import results_of, sample_lines
from embedgrad_cli.storage.results_record import DataReport
from embedgrad_cli.storage.sample_records import Sample
from embedgrad_cli.tasks.graders.algebra import Algebra, Undecided
from embedgrad_cli.tasks.graders.latex import same_by_algebra
from embedgrad_cli.tasks.load import Row, Splits


def test_what_cannot_be_compared_is_wrong_and_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def same(_: Algebra, gold: str, answer: str) -> bool:
        raise Undecided

    monkeypatch.setattr(Algebra, "same", same)
    same_by_algebra.cache_clear()
    task = optimize_config(tmp_path, tmp_path, tmp_path, task__kind="generation", task__grader="boxed").task
    rows = [Row(id=f"test:{number}", query="?", target=r"\boxed{2}", answer="2") for number in range(3)]
    said = [r"\boxed{2}", r"\boxed{1+1}", "nothing"]  # equal as it stands, left to the algebra, invalid
    answers = [[Answer(row.id, "", 0, output, 1, 0.0)] for row, output in zip(rows, said, strict=True)]

    outcomes = {"seed": grade_answers(rows, answers, task)}

    report = DataReport(duplicates_removed=0, contradictions=[], overlaps_removed={})
    results = results_of(outcomes, rows, task, Splits([], [], rows, "", report), split="test", num_skipped=0, model="m")
    arm = results.arms["seed"]
    assert (arm.correct, arm.undecided, arm.invalid) == (1, 1, 1)
    lines = [Sample.from_json(line.to_json(), "") for line in sample_lines({"seed": answers}, rows, outcomes)]
    assert [line.lenient.undecided for line in lines if line.lenient] == [None, True, None]
