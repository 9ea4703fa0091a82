"""Pictures as places and words, which `templates/charts.html.j2` writes as SVG.

Three kinds of picture are simpler and smaller by hand than by a library: plotly would add 3 MB to every report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from embedgrad_cli.reports.scales import Scale, Tick, fitting, linear, show

WIDTH = 440  # in units of the picture, so that 13 of them are readable on a phone
HEIGHT = 230
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 26, 40
ROW = 44  # of a dot-and-interval picture
MOST_POINTS = 400
LONGEST_LABEL = 30  # beside its figures


@dataclass(frozen=True)
class Mark:
    """A point with words that stand beside the pointer; `is_chosen` says that validation chose it."""

    x: float
    y: float
    words: str
    is_chosen: bool = False


@dataclass(frozen=True)
class Series:
    """One line: `path` as SVG has it, and marks on it. `kind` is its colour: 0, 1, … or "quiet"."""

    label: str
    kind: str
    path: str
    marks: list[Mark]


@dataclass(frozen=True)
class Chart:
    """Lines or points over two axes. `rule` is a vertical line with words at it."""

    title: str
    summary: str
    x_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    series: list[Series]
    rule: Tick | None = None
    width: int = WIDTH
    height: int = HEIGHT


@dataclass(frozen=True)
class IntervalRow:
    """An arm: its point, the ends of its interval, where it stands, and its figures in words."""

    label: str
    words: str
    low: float
    point: float
    high: float
    y: float
    is_main: bool


@dataclass(frozen=True)
class IntervalChart:
    """Points with their 95 % intervals, one below the other."""

    title: str
    summary: str
    ticks: list[Tick]
    rows: list[IntervalRow]
    width: int
    height: int


def lines_over_steps(
    title: str,
    series: Sequence[tuple[str, Sequence[tuple[int, float]]]],
    chosen: int | None = None,
    percent: bool = False,
    with_marks: bool = False,
    highlighted: int | None = None,
) -> Chart:
    """One picture of one quantity over optimiser steps.

    Args:
        series: label and (step, value) of each line.
        chosen: the step that validation chose.
        percent: the values are fractions of 1.
        with_marks: a mark at every value, for lines of few.
        highlighted: the number of the line that stands out; the others are quiet then.
    """
    thinned = [(label, thin(points)) for label, points in series]
    every = [point for _, points in thinned for point in points]
    x = linear(min(step for step, _ in every), max(step for step, _ in every), LEFT, WIDTH - RIGHT)
    y = fitting([value for _, value in every], HEIGHT - BOTTOM, TOP, percent)
    drawn = []
    for number, (label, points) in enumerate(thinned):
        kind = str(number % 4) if highlighted is None else ("0" if number == highlighted else "quiet")
        marks = [
            Mark(x.place(step), y.place(value), f"{label}, step {step:g}: {show(value, percent)}", step == chosen)
            for step, value in points
            if with_marks
        ]
        path = " ".join(f"{x.place(step)},{y.place(value)}" for step, value in points)
        drawn.append(Series(label, kind, path, marks))
    drawn.sort(key=lambda one: one.kind != "quiet")  # what stands out is drawn last
    rule = None if chosen is None else Tick(x.place(chosen), f"chosen: step {chosen}")
    return Chart(title, _course(title, thinned, percent), "optimiser step", x.ticks, y.ticks, drawn, rule)


def thin(points: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """The points themselves, or of very many the means of equal numbers of neighbours."""
    size = -(-len(points) // MOST_POINTS)
    if size <= 1:
        return list(points)
    groups = (list(group) for _, group in groupby(enumerate(points), key=lambda item: item[0] // size))
    return [(fmean(p[0] for _, p in group), fmean(p[1] for _, p in group)) for group in groups]


def _course(title: str, series: Sequence[tuple[str, Sequence[tuple[float, float]]]], percent: bool) -> str:
    said = []
    for label, points in series[:4]:
        (first, start), (last, end) = points[0], points[-1]
        said.append(f"{label}: {show(start, percent)} at step {first:g}, {show(end, percent)} at step {last:g}")
    return f"{title}. {'; '.join(said)}."


def intervals(title: str, arms: Sequence[tuple[str, float, tuple[float, float]]], main: str | None) -> IntervalChart:
    """Accuracies, fractions of 1, with their intervals.

    Args:
        arms: label, accuracy and interval of each.
        main: the label of the arm that the verdict is about.
    """
    low, high = min(limits[0] for _, _, limits in arms), max(limits[1] for _, _, limits in arms)
    margin = 0.04 * (high - low) or 0.02
    x = linear(max(low - margin, 0.0), min(high + margin, 1.0), LEFT - 40, WIDTH - 2 * RIGHT, count=5, percent=True)
    rows = [
        IntervalRow(
            label=label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}…",
            words=f"{accuracy:.1%} ({limits[0]:.1%} to {limits[1]:.1%})",
            low=x.place(limits[0]),
            point=x.place(accuracy),
            high=x.place(limits[1]),
            y=ROW * (number + 0.9),
            is_main=label == main,
        )
        for number, (label, accuracy, limits) in enumerate(arms)
    ]
    said = "; ".join(f"{row.label}: {row.words}" for row in rows)
    return IntervalChart(title, f"{title}. {said}.", x.ticks, rows, WIDTH, ROW * len(rows) + BOTTOM + 8)


def scatter(title: str, points: Sequence[tuple[float | str, float, str, bool]]) -> Chart:
    """A setting against validation accuracy; settings that are words stand beside each other.

    Args:
        points: the setting, the accuracy as a fraction of 1, what is said at the point, whether it was chosen.
    """
    settings, y = [point[0] for point in points], fitting([point[1] for point in points], HEIGHT - BOTTOM, TOP, True)
    numbers = [value for value in settings if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(settings):
        x = fitting(numbers, LEFT + 12, WIDTH - RIGHT - 12)
        places = [x.place(value) for value in numbers]
    else:
        x = _categories([str(value) for value in settings])
        names = list(dict.fromkeys(str(value) for value in settings))
        places = [x.place(names.index(str(value))) for value in settings]
    marks = [
        Mark(place, y.place(accuracy), words, is_chosen)
        for place, (_, accuracy, words, is_chosen) in zip(places, points, strict=True)
    ]
    marks.sort(key=lambda mark: mark.is_chosen)  # which is drawn last
    summary = f"Validation accuracy against {title}: {'; '.join(mark.words for mark in marks[:12])}."
    return Chart(title, summary, title, x.ticks, y.ticks, [Series("validation", "0", "", marks)])


def _categories(settings: Sequence[str]) -> Scale:
    names = list(dict.fromkeys(settings))
    width = (WIDTH - LEFT - RIGHT) / len(names)
    longest = max(4, int(width / 7))

    def place(number: float) -> float:
        return round(LEFT + width * (number + 0.5), 2)

    cut = [name if len(name) <= longest else f"{name[: longest - 1]}…" for name in names]
    return Scale(place, [Tick(place(number), name) for number, name in enumerate(cut)])
