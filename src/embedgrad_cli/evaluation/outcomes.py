"""Answers become outcomes: what was found in each, and whether it is right."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from embedgrad_cli.config.schema import TaskConfig
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.evaluation.answers import Answer, AnswerLog, answer_rows
from embedgrad_cli.evaluation.arms import Arm
from embedgrad_cli.parallel.ranks import ALONE, Ranks
from embedgrad_cli.storage.interrupts import stop_if_asked
from embedgrad_cli.storage.record import Json
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
            "%d answers could not be compared with the gold answer (over %g seconds of algebra); none counts as right",
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


def answer_and_grade(
    arm: Arm, rows: Sequence[Row], task: TaskConfig, batch_size: int, ranks: Ranks = ALONE
) -> list[Outcome]:
    """One answer to every row (the likeliest choice, or a greedy one), graded; nothing is written.

    Ranks share the rows, and each row is graded by one of them: what a time limit decides, it decides for all.
    """
    answers = answer_rows(arm, task, batch_size, AnswerLog(), ranks=ranks)
    own = ranks.share([len(one.output) for (one,) in answers])

    def grade() -> list[Any]:
        graded = grade_answers([rows[i] for i in own], [answers[i] for i in own], task)
        return [[i, asdict(outcome.grade)] for i, (outcome,) in zip(own, graded, strict=True)]

    grades = {i: _grade_of(fields) for part in ranks.gather(grade) for i, fields in part}
    return [Outcome(one, grades[i], task.extraction) for i, (one,) in enumerate(answers)]


def mean_loss(arm: Arm, prompt: SoftPrompt, batch_size: int, ranks: Ranks = ALONE) -> float:
    """`Forward.mean_loss` of an arm's examples, which ranks share."""
    own = [arm.examples[i] for i in ranks.share([example.length for example in arm.examples])]
    parts = ranks.gather(lambda: arm.forward.summed_loss(own, prompt, batch_size) if own else 0.0)
    return sum(parts) / sum(len(example.target) for example in arm.examples)


def loss_by_scores(arm: Arm, rows: Sequence[Row], outcomes: Sequence[Outcome]) -> float | None:
    """The mean loss over all target tokens, as `Forward.mean_loss` gives it, from what the choices' scores say already.

    Returns: None where some row's target is not the choice that is its answer.
    """
    likelihood, count = 0.0, 0
    for row, example, options, outcome in zip(rows, arm.examples, arm.options, outcomes, strict=True):
        choices = arm.choices.get(options)
        if choices is None or outcome.answer.scores is None or (row.answer, example.target) not in choices.pairs:
            return None
        likelihood += outcome.answer.scores[row.answer]
        count += len(example.target)
    return -likelihood / count


def _grade(row: Row, answer: Answer, task: TaskConfig) -> Grade:
    stop_if_asked()  # a grader of formulas may think for seconds
    return (
        _of_choice(row, answer)
        if task.kind == "choice"
        else graders.get(task.grader, row.choices).judge(row.answer, answer.output)
    )


def _grade_of(fields: Json) -> Grade:
    return Grade(Extraction(**fields["strict"]), Extraction(**fields["lenient"]))


def _of_choice(row: Row, answer: Answer) -> Grade:
    both = Extraction(answer.output, answer.output == row.answer)
    return Grade(both, both)
