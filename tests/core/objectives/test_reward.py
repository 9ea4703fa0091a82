"""Advantages, and the answers that they weigh."""

from __future__ import annotations

import random

import pytest

from embedgrad_cli.core.objectives.reward import RowAnswers, leave_one_out


@pytest.mark.parametrize("number", [2, 3, 4, 9])
def test_advantages_are_rewards_less_the_mean_of_the_others(number: int) -> None:
    draw = random.Random(number)
    rewards = [draw.uniform(-10, 10) for _ in range(number)]
    advantages = leave_one_out(rewards)
    assert sum(advantages) == pytest.approx(0.0, abs=1e-9)
    for number, (reward, advantage) in enumerate(zip(rewards, advantages, strict=True)):
        others = rewards[:number] + rewards[number + 1 :]
        assert advantage == pytest.approx(reward - sum(others) / len(others), abs=1e-9)


@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, -1 / 3])
@pytest.mark.parametrize("number", [2, 3, 7])
def test_rewards_that_agree_teach_nothing(reward: float, number: int) -> None:
    assert leave_one_out([reward] * number) == [0.0] * number


def test_equal_answers_are_one_with_the_sum_of_their_advantages() -> None:
    row = RowAnswers.of([(1, 2), (3,), (1, 2), (4,), (), (5,)], [0.5, -1.0, 0.25, 0.0, 0.5, -0.25])
    assert dict(zip(row.ids, row.weights, strict=True)) == {(1, 2): 0.75, (3,): -1.0, (5,): -0.25}
