"""Answers of an arm, kept in a file so that a stopped cell goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.evaluation.answer_log import AnswerLog
from embedgrad_cli.evaluation.answers import answer_rows
from embedgrad_cli.evaluation.arms import Arm
from embedgrad_cli.evaluation.outcomes import Outcome, grade_answers
from embedgrad_cli.tasks.load import Row

from .records import TestedRow, TestRecord


def graded(arm: Arm, rows: Sequence[Row], config: OptimizeConfig, file: Path) -> list[Outcome]:
    """The graded answers to the rows; those in the file are not asked for again."""
    answers = answer_rows(arm, config.task, config.evaluation.batch_size, AnswerLog(file))
    return [outcome for (outcome,) in grade_answers(rows, answers, config.task)]


def tested(arm: Arm, rows: Sequence[Row], config: OptimizeConfig, file: Path) -> TestRecord:
    """An arm on the test rows, and how many seconds the answers took that were in the file already."""
    log = AnswerLog(file)
    keys = zip((example.id for example in arm.examples), arm.prompt_hashes(), strict=True)
    before = sum(answer.seconds for key in keys if key in log for answer in log[key])
    outcomes = graded(arm, rows, config, file)
    answers = [
        TestedRow(id=row.id, output=o.output, extracted=o.extracted, answer=row.answer, correct=o.correct)
        for row, o in zip(rows, outcomes, strict=True)
    ]
    return TestRecord(answers=answers, seconds_before=before)
