"""Answers of another engine beside those of embedgrad's own decoding, and what every difference is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Example
from embedgrad_cli.tasks.graders import Grader
from embedgrad_cli.tasks.load import Row

TIE = 1e-3  # logits this close may change places in float32: engines add numbers up in different orders


@dataclass(frozen=True)
class Reference:
    """What embedgrad itself answers, as token ids.

    `reported` of the answers are correct by results.json; None where the results count something else: the choices of a
    task whose labels are scored, or answers that a stop string ended.
    """

    rows: Sequence[Row]
    examples: Sequence[Example]
    answers: Sequence[Sequence[int]]
    model: LanguageModel
    prompt: SoftPrompt
    grader: Grader
    reported: int | None

    @property
    def queries(self) -> list[str]:
        return [row.query for row in self.rows]

    @property
    def end_ids(self) -> set[int]:
        return self.model.end_ids


@dataclass
class Comparison:
    """One route for one prompt.

    `differences` has, for each other answer, the place, both tokens, the gap between their logits, and what the other
    answer changes in the number of correct ones (1, 0 or -1). `reported` is how many are correct by results.json.
    """

    route: str
    prompt: str
    total: int
    correct: int
    reported: int | None
    differences: list[dict[str, Any]] = field(default_factory=list)

    @property
    def equal(self) -> int:
        return self.total - len(self.differences)

    @property
    def is_explained(self) -> bool:
        """Whether every difference begins with a tie, and these alone change the accuracy."""
        changed = sum(one["correct"] for one in self.differences)
        by_ties = all(one["gap"] < TIE for one in self.differences)
        return by_ties and (self.reported is None or self.correct - self.reported == changed)


def compare(route: str, prompt: str, found: Sequence[Sequence[int]], reference: Reference) -> Comparison:
    """Compare token ids; `found` may hold the token that ended an answer."""
    answers = [_until_end(ids, reference.end_ids) for ids in found]
    grades, expected_grades = _grades(answers, reference), _grades(reference.answers, reference)
    result = Comparison(route, prompt, len(answers), sum(grades), reference.reported)
    for i, (expected, answer) in enumerate(zip(reference.answers, answers, strict=True)):
        if list(expected) != list(answer):
            difference = _first_difference(reference.examples[i], expected, answer, reference)
            result.differences.append(
                {"id": reference.rows[i].id, "correct": grades[i] - expected_grades[i], **difference}
            )
    return result


def _grades(answers: Sequence[Sequence[int]], reference: Reference) -> list[bool]:
    texts = reference.model.tokenizer.batch_decode(answers, skip_special_tokens=True)
    pairs = zip(reference.rows, texts, strict=True)
    return [reference.grader.judge(row.answer, text).lenient.correct for row, text in pairs]


def _first_difference(
    example: Example, expected: Sequence[int], answer: Sequence[int], reference: Reference
) -> dict[str, Any]:
    """Where two answers part, and how far apart the logits of their tokens are there, by embedgrad's own forward."""
    end = min(reference.end_ids)
    ours, theirs = [*expected, end], [*answer, end]
    at = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b)
    model = reference.model
    tokens = torch.tensor([[*example.tokens, *ours[:at]]], device=model.device)
    with torch.no_grad():
        logits = model.network(inputs_embeds=reference.prompt.embed(tokens, model)).logits[0, -1].float()
    return {
        "place": at,
        "expected": model.tokenizer.decode([ours[at]]),
        "found": model.tokenizer.decode([theirs[at]]),
        "gap": (logits[ours[at]] - logits[theirs[at]]).abs().item(),
    }


def _until_end(ids: Sequence[int], end_ids: set[int]) -> list[int]:
    return list(ids[: next((i for i, token in enumerate(ids) if token in end_ids), len(ids))])
