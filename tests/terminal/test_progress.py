"""Bars on a terminal, a line a minute elsewhere, nothing with `quiet`."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from embedgrad_cli.storage.metrics_records import StepMetrics, ValidationMetrics
from embedgrad_cli.terminal import progress
from embedgrad_cli.terminal.pace import Minutes
from embedgrad_cli.terminal.progress import TestDisplay, TrainingDisplay

LONG = [f"text:Think about it {number} times, then answer in one word." for number in range(7)]


def row(step: int) -> StepMetrics:
    return StepMetrics(step=step, loss=0.5, grad_norm=1.0, lr=0.1, drift=0.12, tokens=1000, seconds=0.1)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> io.StringIO:
    """A terminal of so many columns."""
    file = io.StringIO()

    def console(quiet: bool) -> Console:
        return Console(file=file, force_terminal=True, width=request.param, highlight=False, quiet=quiet)

    monkeypatch.setattr(progress, "_console", console)
    return file


def lines_of(screen: io.StringIO) -> list[str]:
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue()))


@pytest.mark.parametrize("screen", [80, 110], indirect=True)
def test_training_shows_both_bars_and_all_numbers(screen: io.StringIO) -> None:
    with TrainingDisplay(50, 10, "a summary", 0.5, 0.6) as display:
        for step in range(11, 15):
            display.step(row(step))
        done = display.validation(200)
        done(64)
        display.bars.refresh()
        shown = lines_of(screen)
        display.validated(ValidationMetrics(step=14, validation_accuracy=0.7, validation_loss=1.0, best=True))
        display.bars.refresh()
    (training,) = {line.split("━")[0].strip() for line in shown if line.startswith("optimize")}
    assert training == "optimize"
    last = {name: [line for line in shown if line.startswith(name)][-1] for name in ("optimize", "validation", "loss")}
    assert "14/50" in last["optimize"]
    assert "64/200" in last["validation"]
    assert last["optimize"].rstrip().endswith("left")
    assert last["validation"].rstrip().endswith("left")
    assert "best 60.0%" in last["loss"]
    assert "tokens/s" in last["loss"]
    assert "━" in last["optimize"]
    assert not lines_of(screen)[-2].startswith("validation ━"), "its bar goes when it is done"


@pytest.mark.parametrize("screen", [80, 110], indirect=True)
def test_seven_texts_have_seven_lines_with_labels(screen: io.StringIO) -> None:
    with TestDisplay(LONG) as display:
        for name in LONG:
            display.arm(name, 10)(10)
        display.bars.refresh()
    lines = lines_of(screen)
    for number, name in enumerate(LONG, start=1):
        assert f"text {number}: {name.removeprefix('text:')}" in [line.strip() for line in lines]
        assert any(line.startswith(f"test text {number} ━") and "10/10" in line for line in lines)


def test_a_line_a_minute_without_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress, "Minutes", lambda at_once=False: Minutes(at_once, lambda: now[0]))
    with TrainingDisplay(100, 0, "a summary") as display:
        for step in range(1, 101):
            now[0] += 10
            display.step(row(step))
        done = display.validation(600)
        for _ in range(60):
            now[0] += 10
            done(10)
    said = capsys.readouterr().err.splitlines()
    steps = [line for line in said if line.startswith("step")]
    assert [int(re.findall(r"step (\d+)/100", line)[0]) for line in steps] == [*range(1, 100, 6), 100]
    assert all("loss" in line and "validation" in line for line in steps)
    assert all(line.endswith("left") for line in steps[1:-1])
    validations = [line for line in said if line.startswith("validation")]
    assert [line.split()[1] for line in validations] == [f"{rows}/600" for rows in range(60, 600, 60)]


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingDisplay(2, 0, "a summary", 0.5, 0.5, quiet=True) as display:
        display.validation(2)(2)
        display.step(row(1))
        display.validated(ValidationMetrics(step=1, validation_accuracy=0.7, validation_loss=1.0, best=True))
    with TestDisplay(LONG, quiet=True) as test:
        test.arm(LONG[0], 3)(3)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
