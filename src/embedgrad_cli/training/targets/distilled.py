"""Targets that another prompt gives: its answers, and how likely it found the tokens in each place of them."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from embedgrad_cli.config.fields import num_prompts, seeds_of
from embedgrad_cli.core.objectives import Distill, SoftTargets
from embedgrad_cli.core.passes.sampling import Sampling
from embedgrad_cli.core.passes.scoring import likeliest_tokens
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Example
from embedgrad_cli.errors import DataError, UserError
from embedgrad_cli.evaluation.answer_log import AnswerLog
from embedgrad_cli.evaluation.answers import answer_rows
from embedgrad_cli.evaluation.arms import Arm, ArmPrompt, build_arms
from embedgrad_cli.tasks.demonstrations import as_text
from embedgrad_cli.tasks.load import Row
from embedgrad_cli.tasks.splits import HashOrder
from embedgrad_cli.training.targets.answering import (
    SETTING,
    Answering,
    Sampled,
    as_target,
    teacher_prompt,
    with_targets,
)
from embedgrad_cli.training.targets.targets import Material
from embedgrad_cli.training.targets.teacher_file import TeacherAnswer, load_answers, save_answers
from embedgrad_cli.training.targets.written import batches_from

log = logging.getLogger(__name__)

Replies = list[tuple[int, ...]]  # the tokens of the answers to a row

TOP = 20  # tokens in each place, where objective.top is left out


@dataclass(frozen=True)
class Teacher:
    """The prompt whose answers are learnt.

    Args:
        arm: rows that it answers, as it reads them.
    """

    prompt: ArmPrompt
    arm: Arm


class Distilled:
    """The teacher's answers, in every epoch the same, shuffled as in `Written`.

    No more rows are answered than the run's steps can read. The answers are a file in the run directory, whole or not
    there, which a resumed run reads.

    Raises:
        UserError, ArtifactError: the teacher cannot be read, or was made for another model or template.
        DataError: a row that it answers, in training or in the test, does not fit the model's context behind it.
    """

    rewards = None

    def __init__(self, material: Material) -> None:
        self.material = material
        self.teacher = _teacher(material)
        hashes = "\n".join(self.teacher.arm.prompt_hashes())
        self._read = hashlib.sha256(hashes.encode()).hexdigest()
        file = material.directory.teacher
        self._kept = load_answers(file, self._read) if file.exists() else None
        self._soft_targets = dict[str, SoftTargets]()
        self.objective = Distill(self._soft_targets)
        self._batches: Iterator[list[Example]] | None = None

    def batch(self, step: int, prompt: SoftPrompt) -> Sequence[Example]:
        if self._batches is None:
            self._batches = batches_from(step, self._examples(), self.material.config)
        return next(self._batches)

    def _examples(self) -> list[Example]:
        """The rows under the seed, with the teacher's answers as targets."""
        answers = self._answers()
        examples = list[Example]()
        for example in self.material.examples:
            own = answers.get(example.id, [])
            taught = with_targets(example, [answer.tokens for answer in own])
            self._soft_targets.update({one.id: answer.soft for one, answer in zip(taught, own, strict=True)})
            examples += taught
        return examples

    def _answers(self) -> dict[str, list[TeacherAnswer]]:
        """By the id of the row."""
        if self._kept is not None:
            return self._kept
        file, arm = self.material.directory.teacher, self.teacher.arm
        answers = _with_likelihoods(self._replies(), arm, self.material)
        if self.material.ranks.is_first:
            save_answers(file, answers, self._read)
        log.info("the teacher has answered %d rows; its answers are in %s", len(arm.examples), file)
        return answers

    def _replies(self) -> dict[str, Replies]:
        """The tokens of the teacher's answers to each row, as far as they fit behind the seed's conversation too."""
        arm, limit = self.teacher.arm, self.material.model.max_length
        is_choice = self.material.config.task.kind == "choice"
        replies = _chosen(arm, self.material) if is_choice else _generated(arm, self.material)
        room = {e.id: None if limit is None else limit - len(e.tokens) for e in self.material.examples}
        cut = {row: [tokens[: room[row]] for tokens in of_row] for row, of_row in replies.items()}
        kept = {row: [tokens for tokens in of_row if tokens] for row, of_row in cut.items()}
        if not any(kept.values()):
            raise self.material.ranks.alike(
                DataError(
                    f"{SETTING}: its answers to all {len(kept)} training rows are empty, so there is nothing to "
                    "learn from. Give another teacher."
                )
            )
        return kept


def _teacher(material: Material) -> Teacher:
    """The teacher's prompt, and those training rows under it that the run can read."""
    config, model = material.config, material.model
    shown, rest = _worked_examples(material)
    seeds, prompt = _prompt(material, shown)
    num_answers = config.train.steps * config.train.batch_size
    rows = HashOrder(config.seed).first(rest, max(math.ceil(num_answers / (config.objective.samples or 1)), 1))
    # With the rows of the test, so that one that is too long is not found after the training.
    all_rows = [*rows, *material.tested]
    try:
        arm = build_arms(all_rows, model, material.template, config.task, {SETTING: prompt}).arms[SETTING]
    except DataError as error:
        length = sum(map(len, model.tokenizer(list(seeds), add_special_tokens=False)["input_ids"]))
        raise DataError(f"{SETTING}: with the teacher's {length} tokens in the prompt's place, {error}") from error
    wanted = {row.id for row in rows}
    pairs = [pair for pair in zip(arm.examples, arm.options, strict=True) if pair[0].id in wanted]
    if not pairs:
        raise DataError(f"{SETTING}: no training row fits the model's context behind it. Give a shorter teacher.")
    examples, options = zip(*pairs, strict=True)
    return Teacher(prompt, replace(arm, examples=list(examples), options=list(options)))


def _prompt(material: Material, shown: Sequence[Row]) -> tuple[tuple[str, ...], ArmPrompt]:
    """What stands in the prompt's places when the teacher answers, the rows that it is shown in the last; and its
    texts."""
    config, teacher = material.config, material.config.objective.teacher
    prompt = ArmPrompt(seeds_of(config.prompt)) if teacher is None else teacher_prompt(teacher, material.model)
    seeds, places = prompt.seeds or (), num_prompts(config.template)
    if len(seeds) != places:
        raise UserError(
            f"{SETTING}: the template has {places} places for a prompt, and the teacher fills {len(seeds)}. Give a "
            "template with one, or a .safetensors prompt made in this one."
        )
    if not shown:
        return seeds, prompt
    seeds = (*seeds[:-1], f"{seeds[-1]}\n\n{as_text(shown)}")
    return seeds, ArmPrompt(seeds)


def _worked_examples(material: Material) -> tuple[list[Row], list[Row]]:
    """Training rows that the teacher is shown, and the others."""
    rows, wanted = list(material.rows), material.config.objective.teacher_examples or 0
    if wanted >= len(rows):
        raise DataError(
            f"objective.teacher_examples={wanted} rows are to be taken out of train, which has only {len(rows)}, and "
            "training needs at least one. Give a smaller number."
        )
    shown = HashOrder(material.config.seed).sorted(rows)[:wanted]
    ids = {row.id for row in shown}
    return shown, [row for row in rows if row.id not in ids]


def _chosen(arm: Arm, material: Material) -> dict[str, Replies]:
    """The tokens of the likeliest choice of each row."""
    config, replies = material.config, dict[str, Replies]()
    answers = answer_rows(arm, config.task, config.evaluation.batch_size, AnswerLog(), ranks=material.ranks)
    for example, options, (answer,) in zip(arm.examples, arm.options, answers, strict=True):
        replies[example.id] = [dict(arm.choices[options].pairs)[answer.output]]
    return replies


def _generated(arm: Arm, material: Material) -> dict[str, Replies]:
    """The tokens of what the teacher says to each row, up to what ended it."""
    config, template = material.config, material.prompt_template
    sampling = Sampling(config.objective.samples or 1, config.objective.temperature or 0.0, seed=config.seed)
    at_once = config.evaluation.batch_size
    answering = Answering(arm.forward, arm.prompt, config.task, at_once, sampling, material.ranks, material.engine)

    def replies(examples: Sequence[Example], answers: Sequence[Sequence[Sampled]]) -> list[tuple[str, Replies]]:
        return [
            (example.id, [as_target(one.answer, template) for one in of_row])
            for example, of_row in zip(examples, answers, strict=True)
        ]

    found = dict(pair for batch in answering.batches(arm.examples, replies) for pair in batch)
    return {example.id: [tuple(one) for one in found[example.id]] for example in arm.examples}


def _with_likelihoods(replies: dict[str, Replies], arm: Arm, material: Material) -> dict[str, list[TeacherAnswer]]:
    """What the teacher found likeliest in each place of its answers.

    The tokens by which any choice of a row goes on are always among them.
    """
    options = dict(zip((example.id for example in arm.examples), arm.options, strict=True))
    rows = [example.id for example in arm.examples for _ in replies[example.id]]
    examples = [one for example in arm.examples for one in with_targets(example, replies[example.id])]
    always = [
        _goes_on(one.target, arm.choices[options[row]].ids if options[row] else ())
        for row, one in zip(rows, examples, strict=True)
    ]
    k = max([material.config.objective.top or TOP, *(len(ids) for places in always for ids in places)])
    found = likeliest_tokens(arm.forward, examples, arm.prompt, k, always, material.config.evaluation.batch_size)
    answers = dict[str, list[TeacherAnswer]]()
    for row, one, soft in zip(rows, examples, found, strict=True):
        answers.setdefault(row, []).append(TeacherAnswer(one.target, SoftTargets(*soft)))
    return answers


def _goes_on(answer: tuple[int, ...], choices: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """In each place of an answer, the tokens by which those choices go on that begin as it does."""
    alike = [[ids for ids in choices if ids[:place] == answer[:place]] for place in range(len(answer))]
    return [sorted({ids[place] for ids in of_place if len(ids) > place}) for place, of_place in enumerate(alike)]
