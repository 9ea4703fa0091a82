"""Answers become outcomes: what was found in each, and whether it is right."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from embedgrad_cli.config.task_schema import TaskConfig
from embedgrad_cli.evaluation.answer_log import Answer
from embedgrad_cli.storage.interrupts import stop_if_asked
from embedgrad_cli.tasks import graders
from embedgrad_cli.tasks.graders import Extraction, Grade
from embedgrad_cli.tasks.load import Row

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """A graded answer. `task.extraction` says which of the two extractions counts."""

    answer: Answer
    grade: Grade
    extraction: Literal["strict", "lenient"]

    @property
    def counted(self) -> Extraction:
        return getattr(self.grade, self.extraction)

    @property
    def output(self) -> str:
        return self.answer.output

    @property
    def extracted(self) -> str | None:
        """The answer found in the output; None: invalid."""
        return self.counted.extracted

    @property
    def correct(self) -> bool:
        return self.counted.correct


def grade_answers(rows: Sequence[Row], answers: Sequence[Sequence[Answer]], task: TaskConfig) -> list[list[Outcome]]:
    """Grade every answer to every row: `[rows][samples]`. A log line says how many could not be compared."""
    graded = [
        [Outcome(one, _grade(row, one, task), task.extraction) for one in of_row]
        for row, of_row in zip(rows, answers, strict=True)
    ]
    if undecided := sum(outcome.counted.undecided for of_row in graded for outcome in of_row):
        log.warning(
            "%d answers could not be compared with the gold answer (over %g seconds of reading or of algebra); none "
            "counts as right",
            undecided,
            graders.COMPUTING_SECONDS,
        )
    return graded


def grade_texts(rows: Sequence[Row], texts: Sequence[Sequence[str]], task: TaskConfig) -> list[list[Outcome]]:
    """`grade_answers` where of the answers to each row the texts are all that is known."""
    answers = [
        [Answer(row.id, "", number, text, tokens=0, seconds=0.0) for number, text in enumerate(of_row)]
        for row, of_row in zip(rows, texts, strict=True)
    ]
    return grade_answers(rows, answers, task)


def _grade(row: Row, answer: Answer, task: TaskConfig) -> Grade:
    stop_if_asked()  # a grader of formulas may think for seconds
    return (
        _of_choice(row, answer)
        if task.kind == "choice"
        else graders.get(task.grader, row.choices).judge(row.answer, answer.output)
    )


def _of_choice(row: Row, answer: Answer) -> Grade:
    both = Extraction(answer.output, answer.output == row.answer)
    return Grade(both, both)
