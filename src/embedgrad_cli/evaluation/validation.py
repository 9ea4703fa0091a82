"""An arm measured at once, without a file: its outcomes, and the loss of its targets. So training validates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from embedgrad_cli.config.task_schema import TaskConfig
from embedgrad_cli.core.passes.scoring import Decoder
from embedgrad_cli.evaluation.answer_log import AnswerLog, Progress, unseen
from embedgrad_cli.evaluation.answers import MakeDecoder, answer_rows
from embedgrad_cli.evaluation.arms import Arm
from embedgrad_cli.evaluation.outcomes import Outcome, grade_answers
from embedgrad_cli.parallel.ranks import ALONE, Ranks
from embedgrad_cli.storage.record import Json
from embedgrad_cli.tasks.graders import Extraction, Grade
from embedgrad_cli.tasks.load import Row


def answer_and_grade(
    arm: Arm,
    rows: Sequence[Row],
    task: TaskConfig,
    batch_size: int,
    ranks: Ranks = ALONE,
    decoder_of: MakeDecoder = Decoder,
    progress: Progress = unseen,
) -> list[Outcome]:
    """One answer to every row (the likeliest choice, or a greedy one), graded; nothing is written.

    Ranks share the rows, and each row is graded by one of them: what a time limit decides, it decides for all.
    """
    answers = answer_rows(arm, task, batch_size, AnswerLog(), progress=progress, ranks=ranks, decoder_of=decoder_of)
    own = ranks.share([len(one.output) for (one,) in answers])

    def grade() -> list[Any]:
        graded = grade_answers([rows[i] for i in own], [answers[i] for i in own], task)
        return [[i, asdict(outcome.grade)] for i, (outcome,) in zip(own, graded, strict=True)]

    grades = {i: _grade_of(fields) for part in ranks.gather(grade) for i, fields in part}
    return [Outcome(one, grades[i], task.extraction) for i, (one,) in enumerate(answers)]


def mean_loss(arm: Arm, batch_size: int, ranks: Ranks) -> float:
    """`Forward.mean_loss` of an arm's examples, which ranks share."""
    own = [arm.examples[i] for i in ranks.share([example.length for example in arm.examples])]
    parts = ranks.gather(lambda: arm.forward.summed_loss(own, arm.prompt, batch_size) if own else 0.0)
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


def _grade_of(fields: Json) -> Grade:
    return Grade(Extraction(**fields["strict"]), Extraction(**fields["lenient"]))
