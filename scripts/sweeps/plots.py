"""Settings beside each other as pictures: what validation and test said, and how validation went over the steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from textwrap import fill

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from figures import COLOURS, MARKERS, save

from .settings import NEAR, Course, Section, Setting

SETTINGS_PER_ROW = len(COLOURS)
LONGEST_LINE = 50
QUANTITIES = {"validation_accuracy": ("validation accuracy (%)", 100), "validation_loss": ("validation loss (nats)", 1)}


def plot_settings(section: Section, file: Path) -> None:
    """A line per setting, the best on top: its seeds in validation and test as small marks, the means as large ones."""
    settings = section.settings
    figure, axes = pyplot.subplots(figsize=(7.2, 1.3 + 0.36 * len(settings)), layout="constrained")
    best = 100 * section.best.validation
    axes.axvspan(best - 100 * NEAR, best, color="0.92", zorder=0, label="2 points below the best validation")
    for name, colour, marker, shift in zip(("validation", "test"), COLOURS, MARKERS, (-0.14, 0.14), strict=False):
        for place, setting in enumerate(settings):
            seeds = [100 * value for value in (setting.validations if name == "validation" else setting.tests)]
            axes.plot(seeds, [place + shift] * len(seeds), marker, color=colour, alpha=0.5, markersize=3.5)
            axes.plot(fmean(seeds), place + shift, marker, color=colour, markersize=7, label="" if place else name)
    axes.set_yticks(range(len(settings)), labels=[_name(section, setting) for setting in settings])
    axes.set_ylim(len(settings) - 0.5, -0.5)
    axes.set_xlabel("accuracy (%): means, and seeds as small marks")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=8)
    save(figure, file)


def plot_courses(section: Section, file: Path) -> None:
    """Validation accuracy and loss over the steps, six settings to a row: the mean, and the seeds as thin lines."""
    starts = range(0, len(section.settings), SETTINGS_PER_ROW)
    figure, axes = pyplot.subplots(
        len(starts), 2, figsize=(9, 3.4 * len(starts)), squeeze=False, sharex=True, sharey="col", layout="constrained"
    )
    for line, start in zip(axes, starts, strict=True):
        shown = section.settings[start : start + SETTINGS_PER_ROW]
        for place, (quantity, (name, unit)) in zip(line, QUANTITIES.items(), strict=True):
            for setting, colour, marker in zip(shown, COLOURS, MARKERS, strict=False):
                _draw(place, setting.courses, quantity, unit, colour, marker, _name(section, setting))
            place.set(ylabel=name)
            place.grid(alpha=0.3)
        line[1].set_yscale("log")
        line[1].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        line[1].yaxis.set_major_formatter("{x:g}")
        line[1].yaxis.set_minor_locator(NullLocator())
        line[0].set_ylim(bottom=100 * _lowest(section) - 2)
        line[0].legend(fontsize=7, loc="lower right", edgecolor="none")
    for place in axes[-1]:
        place.set_xlabel("step")
    save(figure, file)


def _name(section: Section, setting: Setting) -> str:
    """A setting in lines that leave room for the picture; a dollar would begin a formula."""
    return fill(section.label(setting), LONGEST_LINE).replace("$", r"\$")


def _lowest(section: Section) -> float:
    """The lowest accuracy after a step: the seed prompt may be so far below that nothing else could be seen."""
    courses = [course for setting in section.settings for course in setting.courses]
    return min((row.validation_accuracy for one in courses for row in one.validations if row.step), default=0.0)


def _draw(
    axes: Axes, courses: Sequence[Course], quantity: str, unit: float, colour: str, marker: str, label: str
) -> None:
    points = [{row.step: unit * getattr(row, quantity) for row in course.validations} for course in courses]
    for one in points:
        axes.plot(list(one), list(one.values()), color=colour, alpha=0.3, linewidth=0.8)
    steps = [step for step in points[0] if all(step in one for one in points)]
    means = [fmean(one[step] for one in points) for step in steps]
    axes.plot(steps, means, color=colour, marker=marker, markersize=4, linewidth=1.8, label=label)
