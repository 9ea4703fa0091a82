"""The equations, on numbers of no model; tests/core/passes/test_choice_scores.py has those of models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from embedgrad_cli.core.objectives import Choice, Gold
from embedgrad_cli.core.objectives.choice import RowChoices
from embedgrad_cli.core.text.answer_tokens import Choices
from embedgrad_cli.core.text.marked_tokens import Example

INF = math.inf
IDS = ((5,), (6, 7), (8, 9, 10))


class Numbers:
    """Passes that give these numbers, and remember what they were asked for."""

    def __init__(self, numbers: Any) -> None:
        self.numbers, self.absolute = torch.as_tensor(numbers), None

    def target_losses(self) -> Tensor:
        return self.numbers

    def choice_scores(self, labels: Sequence[Any], absolute: bool) -> Tensor:
        self.absolute = absolute
        return self.numbers


def row(number: int, gold: int, divisors: tuple[int, ...] = (1, 1, 1)) -> tuple[Example, RowChoices]:
    ids = IDS[: len(divisors)]
    choices = Choices(("a", "b", "c")[: len(ids)], ids, False)
    return Example(str(number), (1, 2, 3), ids[gold]), RowChoices(choices, divisors, gold)


def objective(rows: Sequence[tuple[Example, RowChoices]], *weights: float) -> tuple[list[Example], Choice]:
    examples = [example for example, _ in rows]
    return examples, Choice({example.id: choices for example, choices in rows}, *weights)


def test_gold_is_the_mean_over_the_target_tokens_of_a_batch() -> None:
    batch = [row(0, 0)[0], row(1, 2)[0]]
    passes = Numbers([1.0, 2.0, 3.0, 6.0])
    assert Gold().total(batch, passes).item() / Gold().num_terms(batch) == 3.0


def test_equal_scores_give_the_logarithm_of_their_number() -> None:
    batch, choice = objective([row(0, 0), row(1, 1, (1, 1))])
    total = choice.total(batch, Numbers([[-2.0, -2.0, -2.0], [-7.0, -7.0, -INF]]))
    assert total.item() == pytest.approx(math.log(3) + math.log(2))
    assert choice.num_terms(batch) == 2


def test_a_choice_that_a_row_does_not_have_gets_no_gradient() -> None:
    batch, choice = objective([row(0, 1, (2, 4))], 1.0, 0.5)
    passes = Numbers([[-2.0, -1.0, -INF]])
    passes.numbers.requires_grad_()
    choice.total(batch, passes).backward()
    assert passes.numbers.grad is not None
    assert passes.numbers.grad.isfinite().all()
    assert passes.numbers.grad[0, 2] == 0


def test_weights_and_divisors_stand_where_the_equation_has_them() -> None:
    divisors, scores = (1, 2, 3), [-2.0, -3.0, -6.0]
    batch, choice = objective([row(0, 2, divisors)], 0.7, 0.3)
    ranked = torch.tensor([[score / d for score, d in zip(scores, divisors, strict=True)]])
    expected = 0.7 * cross_entropy(ranked, torch.tensor([2])).item() + 0.3 * 6.0 / 3
    assert choice.total(batch, Numbers([scores])).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("divisors", "gold_weight", "absolute"), [((1, 1, 1), 0.0, False), ((1, 2, 3), 0.0, True), ((1, 1, 1), 0.5, True)]
)
def test_likelihoods_themselves_are_asked_for_only_where_they_count(
    divisors: tuple[int, ...], gold_weight: float, absolute: bool
) -> None:
    batch, choice = objective([row(0, 0, divisors)], 1.0, gold_weight)
    passes = Numbers([[-1.0, -2.0, -3.0]])
    choice.total(batch, passes)
    assert passes.absolute is absolute
    if not absolute:
        shifted = Numbers([[4.0, 3.0, 2.0]])
        assert choice.total(batch, shifted).item() == pytest.approx(choice.total(batch, passes).item())
