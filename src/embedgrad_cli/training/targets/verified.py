"""Targets that a prompt gave itself: answers to the training rows that the task's grader found right."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from embedgrad_cli.config.schema import ObjectiveConfig, OptimizeConfig
from embedgrad_cli.core.passes.ending import GeneratedAnswer
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.sampling import Sampling
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Example
from embedgrad_cli.errors import UserError
from embedgrad_cli.evaluation.arms import Arm
from embedgrad_cli.evaluation.outcomes import Outcome, grade_texts
from embedgrad_cli.storage.files import json_line
from embedgrad_cli.storage.training_answers import AnsweredRow, TrainingAnswer, TrainingAnswers
from embedgrad_cli.terminal.progress import AnsweringDisplay
from embedgrad_cli.training.targets.answering import (
    Answering,
    Sampled,
    as_target,
    seed_of_round,
    teacher_arm,
    with_targets,
)
from embedgrad_cli.training.targets.targets import Material
from embedgrad_cli.training.targets.written import batches_from

log = logging.getLogger(__name__)


class Verified:
    """The gold loss on answers that are the model's own and right.

    Each of `objective.rounds` equal parts of the run begins with `objective.samples` answers to every training row, of
    the prompt as it is then or of `objective.teacher`. The first `objective.keep` that the task's grader finds right
    and that differ in their tokens are the row's targets in that part; an answer that its limit cut is none. Rows
    without any keep the target that the data has, or are left out (`objective.unsolved`).

    Rejection sampling (Yuan et al. 2023, arXiv 2308.01825), for a prompt instead of weights.
    """

    rewards = None

    def __init__(self, material: Material) -> None:
        self.material, self.objective = material, material.objective
        config, directory = material.config, material.directory
        self.files = TrainingAnswers(directory.targets, directory.partial_targets)
        teacher = config.objective.teacher
        self._teacher = None if teacher is None else teacher_arm(material, teacher)
        self._by_id = {example.id: example for example in material.examples}
        self._forward: Forward | None = None
        self._round: int | None = None
        self._batches: Iterator[list[Example]] = iter(())
        if material.ranks.is_first and not directory.checkpoint.exists():
            self.files.forget()  # nobody knows any more what these answers were given to

    def batch(self, step: int, prompt: SoftPrompt) -> Sequence[Example]:
        config = self.material.config
        number, first = round_of(step, config)
        if self._round != number:
            arm = self._teacher or self._arm_of(prompt)
            examples = self._examples(number, self._answers(number, arm, begins=step == first))
            ordered = replace(config, seed=seed_of_round(config.seed, number))
            self._batches, self._round = batches_from(step - first, examples, ordered), number
        return next(self._batches)

    def _arm_of(self, prompt: SoftPrompt) -> Arm:
        material = self.material
        self._forward = self._forward or Forward(material.model, material.examples, material.shares_trunk)
        return Arm("training", self._forward, list(material.examples), [()] * len(material.examples), {}, prompt)

    def _answers(self, number: int, arm: Arm, begins: bool) -> list[AnsweredRow]:
        """The graded answers of a round: those in the run directory, or new ones.

        Args: begins: the prompt is the one that the round begins with.
        """
        before = self._read(self.files.finished)
        hashes = {example.id: one for example, one in zip(arm.examples, arm.prompt_hashes(), strict=True)}
        if self._teacher is not None and any(hashes.get(row.id) != row.prompt_hash for row in before):
            raise self.material.ranks.alike(
                UserError(
                    f"objective.teacher: it is not what it was when it gave the answers in {self.files.whole}. Give "
                    "the teacher that the run began with, or another output_dir."
                )
            )
        known = [row for row in before if row.round == number + 1]
        if known and (not begins or all(hashes.get(row.id) == row.prompt_hash for row in known)):
            return known
        if not begins:
            raise self.material.ranks.alike(
                UserError(
                    f"{self.files.whole} lacks the answers of round {number + 1}, which this run was training on. Copy "
                    f"it back, or delete {self.material.directory.checkpoint} to start the run from the beginning."
                )
            )
        return self._draw(number, arm, hashes)

    def _read(self, read: Callable[[], list[AnsweredRow]]) -> list[AnsweredRow]:
        """What the first rank reads, for all of them."""
        ranks = self.material.ranks
        lines, *_ = ranks.gather(lambda: list(map(json_line, read())) if ranks.is_first else [])
        return [AnsweredRow.parse(line, str(self.files.whole)) for line in lines]

    def _draw(self, number: int, arm: Arm, hashes: dict[str, str]) -> list[AnsweredRow]:
        """Let the arm answer all rows, grade the answers and keep them; what a stop left is not drawn again."""
        config, ranks = self.material.config, self.material.ranks
        settings = config.objective
        begun = self._read(lambda: self.files.unfinished(number + 1))
        done = {row.id: row for row in begun if hashes.get(row.id) == row.prompt_hash}
        title = f"round {number + 1} of {settings.rounds}"
        display = AnsweringDisplay(title, len(arm.examples), len(done), quiet=config.quiet or not ranks.is_first)
        grade = partial(self._graded, number, hashes)
        for lines in self._answering(number, arm).batches(arm.examples, grade, known=done):
            graded = [AnsweredRow.parse(line, str(self.files.partial)) for line in lines]
            if ranks.is_first:
                self.files.add(graded)
            done.update((row.id, row) for row in graded)
            display.advance(len(graded))
        rows = [done[example.id] for example in arm.examples]
        if ranks.is_first:
            self.files.finish(number + 1, rows)
        summary = f"{title}: {summary_of(rows, len(self.material.rows), settings)}"
        log.info(summary)
        display.end(summary)
        return rows

    def _answering(self, number: int, arm: Arm) -> Answering:
        config, settings = self.material.config, self.material.config.objective
        sampling = Sampling(
            num_samples=settings.samples or 1,
            temperature=settings.temperature or 0.0,
            seed=seed_of_round(config.seed, number),
        )
        at_once = config.evaluation.batch_size
        return Answering(
            arm.forward, arm.prompt, config.task, at_once, sampling, self.material.ranks, self.material.engine
        )

    def _graded(
        self, number: int, hashes: dict[str, str], examples: Sequence[Example], answers: Sequence[list[Sampled]]
    ) -> list[str]:
        """The lines of the file that rows make with their answers. A row is graded once, for all ranks: a grader has
        a time limit, which could decide otherwise for another one."""
        rows, task = {row.id: row for row in self.material.rows}, self.material.config.task
        texts = [[one.text for one in of_row] for of_row in answers]
        outcomes = grade_texts([rows[example.id] for example in examples], texts, task)
        return [
            json_line(
                AnsweredRow(
                    round=number + 1,
                    id=example.id,
                    prompt_hash=hashes[example.id],
                    answers=self._chosen(example.id, sampled, of_row),
                )
            )
            for example, sampled, of_row in zip(examples, answers, outcomes, strict=True)
        ]

    def _chosen(self, row: str, sampled: Sequence[Sampled], outcomes: Sequence[Outcome]) -> list[TrainingAnswer]:
        """The answers to a row, and which of them are kept: the first right ones that differ, end and fit."""
        example = self._by_id[row]
        limit, kept = self.material.model.max_length, set[tuple[int, ...]]()
        chosen = []
        for one, outcome in zip(sampled, outcomes, strict=True):
            target = as_target(one.answer, self.material.prompt_template)
            fits = limit is None or len(example.tokens) + len(target) <= limit
            usable = outcome.correct and one.answer.ending != "limit" and bool(target) and fits
            keeps = usable and target not in kept and len(kept) < (self.material.config.objective.keep or 1)
            if keeps:
                kept.add(target)
            chosen.append(
                TrainingAnswer(
                    output=one.text,
                    ids=one.answer.ids,
                    ending=one.answer.ending,
                    extracted=outcome.extracted,
                    correct=outcome.correct,
                    kept=keeps,
                )
            )
        return chosen

    def _examples(self, number: int, rows: Sequence[AnsweredRow]) -> list[Example]:
        """What a round trains on, in the order of the training rows.

        Raises:
            UserError: nothing was right, and unsolved rows are left out.
        """
        settings, template = self.material.config.objective, self.material.prompt_template
        kept = {row.id: [one for one in row.answers if one.kept] for row in rows}
        examples = list[Example]()
        for example in self.material.examples:
            targets = [as_target(GeneratedAnswer(one.ids, one.ending), template) for one in kept.get(example.id, ())]
            if targets:
                examples += with_targets(example, targets)
            elif settings.unsolved != "skip":
                examples.append(example)
        if not examples:
            raise self.material.ranks.alike(UserError(_nothing_right(number, settings, rows, self.files)))
        return examples


def round_of(step: int, config: OptimizeConfig) -> tuple[int, int]:
    """The round that a step belongs to, from 0, and the round's first step."""
    rounds, steps = config.objective.rounds or 1, config.train.steps
    firsts = [number * steps // rounds for number in range(rounds)]
    number = max(number for number, first in enumerate(firsts) if first <= step)
    return number, firsts[number]


def summary_of(rows: Sequence[AnsweredRow], num_rows: int, settings: ObjectiveConfig) -> str:
    """What came of a round in a line. Args: num_rows: all training rows, with those that a teacher could not read."""
    answers = [one for row in rows for one in row.answers]
    right, kept = sum(one.correct for one in answers), sum(one.kept for one in answers)
    cut = sum(one.ending == "limit" for one in answers)
    unsolved = num_rows - sum(any(one.kept for one in row.answers) for row in rows)
    fate = "left out" if settings.unsolved == "skip" else "with the data's own target"
    return (
        f"{num_rows} rows, {len(answers)} answers, {right / max(len(answers), 1):.1%} right, {cut} cut at their limit, "
        f"{kept} kept, {unsolved} rows unsolved ({fate})"
    )


def _nothing_right(number: int, settings: ObjectiveConfig, rows: Sequence[AnsweredRow], files: TrainingAnswers) -> str:
    answers = sum(len(row.answers) for row in rows)
    right = sum(one.correct for row in rows for one in row.answers)
    found = f"none of {answers} answers was right" if not right else f"all right answers of {answers} were cut short"
    return (
        f"objective=verified: no row was solved in round {number + 1}: {found}, and objective.unsolved=skip leaves "
        f"such rows out, so there is nothing to train on. The answers are in {files.whole}. Try more answers "
        f"(objective.samples={4 * (settings.samples or 1)}), another objective.temperature, a longer "
        "task.max_new_tokens, a teacher that solves some (objective.teacher=FILE), or objective.unsolved=gold, in "
        "another output_dir."
    )
