"""Axes: values stand where they belong, and the numbers on an axis are round and on it."""

from __future__ import annotations

import math
import random

import pytest

from embedgrad_cli.reports.scales import fitting, linear, round_numbers


@pytest.mark.parametrize("seed", range(30))
def test_ends_and_order_are_kept(seed: int) -> None:
    chance = random.Random(seed)
    values = sorted(10 ** chance.uniform(-6, 6) * chance.choice([1, 1, -1]) for _ in range(20))
    scale = fitting(values, 50, 400)
    places = [scale.place(value) for value in values]
    assert places == sorted(places)
    assert (places[0], places[-1]) == (50, 400)
    assert scale.ticks
    assert all(49.9 <= tick.place <= 400.1 for tick in scale.ticks)


def test_large_factors_are_logarithmic() -> None:
    scale = fitting([0.001, 1000.0], 0, 600)
    assert scale.place(1.0) == 300


@pytest.mark.parametrize("values", [[0.5], [0.0, 0.0], [3.0, 3.0, 3.0]])
def test_a_range_of_nothing_has_a_middle(values: list[float]) -> None:
    assert fitting(values, 0, 100).place(values[0]) == 50


@pytest.mark.parametrize("seed", range(30))
def test_numbers_on_an_axis_are_few_round_and_inside(seed: int) -> None:
    chance = random.Random(seed)
    low = chance.uniform(-1, 1) * 10 ** chance.randint(-4, 4)
    high = low + chance.random() * 10 ** chance.randint(-4, 4) + 1e-5
    numbers = round_numbers(low, high, 4)
    assert 2 <= len(numbers) <= 7
    step = numbers[1] - numbers[0]
    assert all(low - step / 1e6 <= number <= high + step / 1e6 for number in numbers)
    assert math.isclose(float(f"{step:.0e}"), step, rel_tol=1e-6)  # one digit


def test_linear_is_linear() -> None:
    assert linear(0, 10, 0, 100).place(2.5) == 25
