"""Pictures: points stand where their values say, and what validation chose is marked."""

from __future__ import annotations

import math

import pytest

from embedgrad_cli.reports.charts import MOST_POINTS, intervals, lines_over_steps, parallel, scatter, thin


def test_very_many_points_are_means_that_keep_the_mean() -> None:
    points = [(step, math.sin(step)) for step in range(4 * MOST_POINTS)]
    few = thin(points)
    assert len(few) == MOST_POINTS
    assert math.isclose(
        sum(value for _, value in few) / len(few), sum(v for _, v in points) / len(points), abs_tol=1e-9
    )


def test_what_was_chosen_is_marked() -> None:
    chart = lines_over_steps("accuracy", [("run", [(0, 0.1), (5, 0.4), (9, 0.3)])], chosen=5, with_marks=True)
    assert [mark.is_chosen for mark in chart.series[0].marks] == [False, True, False]
    assert chart.rule is not None
    assert chart.rule.place == chart.series[0].marks[1].x


def test_settings_that_are_words_stand_beside_each_other() -> None:
    chart = scatter(
        "template", [("system", 0.4, "a", False), ("before-query", 0.6, "b", True), ("system", 0.5, "c", False)]
    )
    assert [tick.label for tick in chart.x_ticks] == ["system", "before-query"]
    by_words = {mark.words: mark for mark in chart.series[0].marks}
    assert by_words["a"].x == by_words["c"].x < by_words["b"].x
    assert by_words["b"].y < by_words["c"].y < by_words["a"].y  # downwards in a picture


def test_numbers_among_words_stand_first_and_in_order() -> None:
    chart = scatter("radius", [(0.5, 0.9, "a", False), ("null", 0.8, "b", False), (0.25, 0.5, "c", False)])
    assert [tick.label for tick in chart.x_ticks] == ["0.25", "0.5", "null"]


def test_intervals_hold_their_points_in_order() -> None:
    arms = [("none", 0.2, (0.1, 0.35)), ("seed", 0.5, (0.4, 0.6)), ("optimized", 0.9, (0.8, 1.0))]
    chart = intervals("accuracy", arms, main="optimized")
    points = [row.point for row in chart.rows]
    assert points == sorted(points)
    assert all(0 < row.low < row.point < row.high <= chart.width for row in chart.rows)
    assert [row.is_main for row in chart.rows] == [False, False, True]


@pytest.mark.parametrize("number", range(4))
def test_a_line_goes_through_every_setting_of_its_run(number: int) -> None:
    rates, kinds, accuracies = [0.01, 0.1, 1.0, 0.1], ["a", "b", "a", "c"], [0.5, 0.7, 0.6, 0.9]
    chart = parallel("all", [("lr", rates), ("kind", kinds), ("steps", [1, 2, 3, 4])], accuracies, chosen=3)
    (line,) = [
        one
        for one in chart.series
        if one.label.startswith(f"lr {rates[number]}, kind {kinds[number]}, ") and f"steps {number + 1}:" in one.label
    ]
    assert (line.kind == "quiet") == (number != 3)
    assert chart.series[-1].kind != "quiet"  # drawn over the others
    places = [float(point.partition(",")[2]) for point in line.path.split()]
    assert [point.partition(",")[0] for point in line.path.split()] == [str(axis.x) for axis in chart.axes]
    assert places[1] == next(tick.place for tick in chart.axes[1].ticks if tick.label == kinds[number])
    assert math.isclose(places[2], [190, 138, 87, 36][number], abs_tol=2)
