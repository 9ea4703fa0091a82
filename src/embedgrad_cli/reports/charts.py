"""Pictures as places and words, which `templates/charts.html.j2` writes as SVG.

Three kinds of picture are simpler and smaller by hand than by a library: plotly would add 3 MB to every report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from embedgrad_cli.evaluation.significance import show_interval
from embedgrad_cli.reports.scales import Tick, fitting, linear, show

WIDTH = 440  # in units of the picture, so that 13 of them are readable on a phone
HEIGHT = 230
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 26, 40
ROW = 44  # of a dot-and-interval picture
MOST_POINTS = 400
LONGEST_LABEL = 30  # beside its figures
AXIS = 130  # between parallel axes
LONGEST_TICK = 12  # beside one of them

Setting = float | str


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


@dataclass(frozen=True)
class Axis:
    """A vertical axis among others."""

    label: str
    x: float
    ticks: list[Tick]


@dataclass(frozen=True)
class ParallelChart:
    """Lines through several vertical axes."""

    title: str
    summary: str
    axes: list[Axis]
    series: list[Series]
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
        kind = str(number % 4) if highlighted is None else ("1" if number == highlighted else "quiet")
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
            words=f"{accuracy:.1%} ({show_interval(limits)})",
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


def scatter(title: str, points: Sequence[tuple[Setting, float, str, bool]]) -> Chart:
    """A setting against validation accuracy; settings that are words stand beside each other.

    Args:
        points: the setting, the accuracy as a fraction of 1, what is said at the point, whether it was chosen.
    """
    y = fitting([accuracy for _, accuracy, _, _ in points], HEIGHT - BOTTOM, TOP, percent=True)
    longest = int((WIDTH - LEFT - RIGHT) / len({str(value) for value, *_ in points}) / 7)
    places, ticks = _axis([value for value, *_ in points], LEFT + 12, WIDTH - RIGHT - 12, longest)
    marks = [
        Mark(place, y.place(accuracy), words, is_chosen)
        for place, (_, accuracy, words, is_chosen) in zip(places, points, strict=True)
    ]
    marks.sort(key=lambda mark: mark.is_chosen)  # which is drawn last
    summary = f"Validation accuracy against {title}: {'; '.join(mark.words for mark in marks[:12])}."
    return Chart(title, summary, title, ticks, y.ticks, [Series("validation", "0", "", marks)])


def parallel(
    title: str, settings: Sequence[tuple[str, Sequence[Setting]]], accuracies: Sequence[float], chosen: int | None
) -> ParallelChart:
    """A line per run through its settings and its validation accuracy, each on an axis of its own.

    Args:
        settings: the name of each, and its value in every run.
        accuracies: of every run, fractions of 1.
        chosen: the number of the run that validation chose.
    """
    width = max(WIDTH, AXIS * (len(settings) + 1))
    columns = [(name, *_axis(values, HEIGHT - BOTTOM, TOP + 10, LONGEST_TICK)) for name, values in settings]
    y = fitting(accuracies, HEIGHT - BOTTOM, TOP + 10, percent=True)
    columns.append(("validation", [y.place(accuracy) for accuracy in accuracies], y.ticks))
    gap = (width - 2 * LEFT) / (len(columns) - 1)
    axes = [Axis(name, round(LEFT + gap * number, 2), ticks) for number, (name, _, ticks) in enumerate(columns)]
    series = []
    for run, accuracy in enumerate(accuracies):
        path = " ".join(f"{axis.x},{places[run]}" for axis, (_, places, _) in zip(axes, columns, strict=True))
        values = ", ".join(f"{name} {values[run]}" for name, values in settings)
        series.append(Series(f"{values}: {accuracy:.1%}", "1" if run == chosen else "quiet", path, []))
    series.sort(key=lambda one: one.kind != "quiet")
    summary = f"{title}. {'; '.join(one.label for one in series[-12:])}."
    return ParallelChart(title, summary, axes, series, width, HEIGHT)


def _axis(values: Sequence[Setting], start: float, end: float, longest: int) -> tuple[list[float], list[Tick]]:
    """The place of each value, and the ticks: numbers along a line; words beside each other, after the numbers."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(values):
        scale = fitting(numbers, start, end)
        return [scale.place(value) for value in numbers], scale.ticks
    names = list(dict.fromkeys(map(str, [*sorted(numbers), *values])))
    width = (end - start) / len(names)
    places = {name: round(start + width * (number + 0.5), 2) for number, name in enumerate(names)}
    cut = {name: name if len(name) <= max(longest, 4) else f"{name[: max(longest, 4) - 1]}…" for name in names}
    return [places[str(value)] for value in values], [Tick(places[name], cut[name]) for name in names]
