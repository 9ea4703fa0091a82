"""The time left is that of this process's own speed, and a line comes once a minute."""

from __future__ import annotations

import pytest

from embedgrad_cli.terminal.pace import Minutes, Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_what_an_earlier_process_did_makes_it_no_faster(clock: Clock) -> None:
    pace = Pace(100, 80, clock=clock)
    assert pace.left is None
    clock.now += 10
    pace.update(85)
    assert pace.left == pytest.approx(2 * 15)
    clock.now += 4
    assert pace.left == pytest.approx(26), "it counts down"
    assert str(pace) == "26 s left"
    clock.now += 1000
    assert pace.left == 0
    pace.update(100)
    assert str(pace) == ""


def test_known_rows_make_it_no_faster(clock: Clock) -> None:
    pace = Pace(100, clock=clock)
    pace.update(60, known=60)
    assert pace.left is None
    clock.now += 10
    pace.update(70)
    assert pace.left == pytest.approx(30)


def test_what_came_before_the_first_step_is_not_its_time(clock: Clock) -> None:
    pace = Pace(10, 4, starts=False, clock=clock)
    clock.now += 500  # a validation
    pace.update(5)
    assert pace.left is None
    clock.now += 3
    pace.update(6)
    assert pace.left == pytest.approx(12)


def test_once_a_minute(clock: Clock) -> None:
    later, at_once = Minutes(clock=clock), Minutes(at_once=True, clock=clock)
    assert (later.is_due, at_once.is_due) == (False, True)
    clock.now += 59
    assert (later.is_due, at_once.is_due) == (False, False)
    clock.now += 1
    assert (later.is_due, at_once.is_due, later.is_due) == (True, True, False)
