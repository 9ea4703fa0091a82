"""From numbers to places in a picture, and the few round numbers that stand on an axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LOGARITHMIC_FROM = 30.0  # the largest over the smallest
MOST_TICKS = 6  # of a logarithmic axis


@dataclass(frozen=True)
class Tick:
    """A place on an axis, in units of the picture, and what stands there."""

    place: float
    label: str


@dataclass(frozen=True)
class Scale:
    """An axis: `place(value)` is where a value stands, `ticks` are what it is labelled with."""

    place: Callable[[float], float]
    ticks: list[Tick]


def linear(low: float, high: float, start: float, end: float, count: int = 4, percent: bool = False) -> Scale:
    """An axis from `low` to `high`, which stand at `start` and `end`. A range of nothing is given some width."""
    if not high > low:
        margin = abs(low) * 0.05 or 0.5
        low, high = low - margin, high + margin

    def place(value: float) -> float:
        return round(start + (end - start) * (value - low) / (high - low), 2)

    return Scale(place, [Tick(place(value), show(value, percent)) for value in round_numbers(low, high, count)])


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    """The same where both are above 0: equal factors are equally far apart."""
    exponents = linear(math.log10(low), math.log10(high), start, end)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    by_factors = [[factor * 10.0**power for power in powers for factor in factors] for factors in ((1, 2, 5), (1,))]
    every, tens = ([v for v in values if low <= v * (1 + 1e-9) and v * (1 - 1e-9) <= high] for values in by_factors)
    inside = tens if len(every) > MOST_TICKS and len(tens) > 1 else every
    step = math.ceil(len(inside) / MOST_TICKS)
    return Scale(
        lambda value: exponents.place(math.log10(value)),
        [Tick(exponents.place(math.log10(value)), show(value)) for value in inside[::step]],
    )


def fitting(values: Sequence[float], start: float, end: float, percent: bool = False) -> Scale:
    """A linear axis, or a logarithmic one where positive values differ by large factors."""
    low, high = min(values), max(values)
    if not percent and low > 0 and high / low >= LOGARITHMIC_FROM:
        return logarithmic(low, high, start, end)
    return linear(low, high, start, end, percent=percent)


def round_numbers(low: float, high: float, count: int) -> list[float]:
    """About `count` multiples of 1, 2 or 5 times a power of ten, from `low` to `high`."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= 0.7 * rough)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def show(value: float, percent: bool = False) -> str:
    """A number in three digits at most: 0.125, 12.5, 1,250; or in per cent."""
    if percent:
        return f"{100 * value:.4g}%"
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
