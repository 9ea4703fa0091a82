"""Several prompts, the same questions: answers, grades, and what the difference is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from embedgrad_cli.core.decoding import generate, score_choices
from embedgrad_cli.core.encoding import Example, Slots, continuation, encode
from embedgrad_cli.core.forward import Forward
from embedgrad_cli.core.model import LanguageModel
from embedgrad_cli.core.soft_prompt import SoftPrompt
from embedgrad_cli.core.template import Conversation
from embedgrad_cli.errors import DataError
from embedgrad_cli.schema import PromptConfig, TaskConfig, TemplateConfig
from embedgrad_cli.statistics import paired_difference, wilson_interval
from embedgrad_cli.tasks import graders
from embedgrad_cli.tasks.data import Row

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Outcome:
    """What a model answered to one row: the text, the answer found in it (None: invalid), and whether it is right."""

    id: str
    output: str
    extracted: str | None
    correct: bool


@dataclass(frozen=True)
class Arm:
    """One prompt under evaluation: rows rendered with it, and the vectors that stand in its slots."""

    name: str
    forward: Forward
    examples: list[Example]
    choices: dict[str, tuple[int, ...]]  # token ids of every choice that a row has
    prompt: SoftPrompt


def seeds_of(config: PromptConfig) -> list[str]:
    return [config.text] if isinstance(config.text, str) else list(config.text)


def answer_rows(
    arm: Arm, rows: Sequence[Row], task: TaskConfig, batch_size: int, progress: Progress = lambda done: None
) -> list[Outcome]:
    """Answer and grade every row: the likeliest choice, or a greedy answer graded by the task's grader."""
    if task.kind == "choice":
        best = _likeliest_choices(arm, rows, batch_size, progress)
        return [Outcome(row.id, b, b, b == row.answer) for row, b in zip(rows, best, strict=True)]
    answers = generate(arm.forward, arm.examples, arm.prompt, task.max_new_tokens, batch_size, progress)
    texts = arm.forward.model.tokenizer.batch_decode(answers, skip_special_tokens=True)
    outcomes = []
    for row, text in zip(rows, texts, strict=True):
        grade = graders.get(task.grader, row.choices).judge(row.answer, text)
        counts = grade.strict if task.extraction == "strict" else grade.lenient
        outcomes.append(Outcome(row.id, text, counts.extracted, counts.correct))
    return outcomes


def _likeliest_choices(arm: Arm, rows: Sequence[Row], batch_size: int, progress: Progress) -> list[str]:
    """The likeliest of each row's choices. Rows with the same choices are scored together."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(row.choices, []).append(number)
    best = [""] * len(rows)
    for names, numbers in groups.items():
        examples, choices = [arm.examples[n] for n in numbers], [arm.choices[name] for name in names]
        scores = score_choices(arm.forward, examples, choices, arm.prompt, batch_size, progress)
        for number, one in zip(numbers, scores, strict=True):
            best[number] = names[max(range(len(names)), key=one.__getitem__)]
    return best


class Examination:
    """The same rows for every arm.

    Arms differ in length, so a row may fit the model's context under one and not under another. Such a row is an
    error or, with `task.too_long=skip`, left out of all arms alike.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        model: LanguageModel,
        template: TemplateConfig,
        prompt: PromptConfig,
        task: TaskConfig,
        shares_trunk: bool = True,
    ) -> None:
        self.model, self.task, self.shares_trunk = model, task, shares_trunk
        self.with_prompt = Conversation(template, seeds_of(prompt), model.tokenizer, model.is_chat)
        self.without_prompt = Conversation(template, None, model.tokenizer, model.is_chat)
        self.rows, self.skipped = list(rows), list[str]()
        self.prompted, self.slots = self._encode(self.with_prompt)
        self._bare: list[Example] | None = None

    def arm(self, name: str, prompt: SoftPrompt | None) -> Arm:
        """An arm with these vectors in the slots; None is the template without any prompt."""
        conversation = self.with_prompt if prompt else self.without_prompt
        if prompt is None and self._bare is None:
            self._bare, _ = self._encode(self.without_prompt)
            kept = {row.id for row in self.rows}
            self.prompted = [example for example in self.prompted if example.id in kept]
        examples = self.prompted if prompt else self._bare or []
        names = {choice for row in self.rows for choice in row.choices} if self.task.kind == "choice" else ()
        choices = {name: continuation(name, conversation, self.model) for name in names}
        forward = Forward(self.model, examples, self.shares_trunk)
        return Arm(name, forward, examples, choices, prompt or _no_prompt(self.model))

    def _encode(self, conversation: Conversation) -> tuple[list[Example], Slots]:
        longest_choice = max((len(choice) for row in self.rows for choice in row.choices), default=1)
        room = longest_choice if self.task.kind == "choice" else 1
        encoded = encode(self.rows, conversation, self.model, ends_turn=False, room=room, too_long=self.task.too_long)
        skipped = set(encoded.skipped)
        self.skipped += encoded.skipped
        self.rows = [row for row in self.rows if row.id not in skipped]
        if not self.rows:
            raise DataError(
                f"task {self.task.name}: no example of this split fits the model's context of "
                f"{self.model.max_length} tokens. Take a model with a longer context or shorter rows."
            )
        return encoded.examples, encoded.slots


def run_arms(
    examination: Examination,
    prompts: dict[str, SoftPrompt | None],
    batch_size: int,
    progress: Callable[[str, int], Progress],
) -> dict[str, list[Outcome]]:
    """Let every arm answer every row. `progress(arm, rows)` gives a callback that counts finished rows."""
    for prompt in prompts.values():  # encode all of them first: a row that is skipped is skipped in every arm
        examination.arm("", prompt)
    outcomes = {}
    for name, prompt in prompts.items():
        arm = examination.arm(name, prompt)
        report = progress(name, len(arm.examples))
        outcomes[name] = answer_rows(arm, examination.rows, examination.task, batch_size, report)
    return outcomes


def summarise(outcomes: dict[str, list[Outcome]], baseline: str, candidate: str) -> dict[str, Any]:
    """The `arms` and `comparison` of `results.json`. Accuracies and differences are fractions of 1."""
    arms = {}
    for name, answers in outcomes.items():
        correct, total = sum(o.correct for o in answers), len(answers)
        arms[name] = {
            "accuracy": correct / total,
            "ci95": list(wilson_interval(correct, total)),
            "correct": correct,
            "invalid": sum(o.extracted is None for o in answers),
        }
    paired = paired_difference([o.correct for o in outcomes[baseline]], [o.correct for o in outcomes[candidate]])
    return {"arms": arms, "comparison": {"baseline": baseline, "candidate": candidate, **paired}}


def sample_rows(outcomes: dict[str, list[Outcome]], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The lines of `samples.jsonl`: one per example and arm."""
    return [
        {
            "id": row.id,
            "arm": name,
            "query": row.query,
            "answer": row.answer,
            "output": outcome.output,
            "extracted": outcome.extracted,
            "correct": outcome.correct,
        }
        for index, row in enumerate(rows)
        for name, outcome in ((name, answers[index]) for name, answers in outcomes.items())
    ]


def _no_prompt(model: LanguageModel) -> SoftPrompt:
    return SoftPrompt(Slots(()), torch.empty(0, model.hidden_size, device=model.device))
