"""Accuracy over training rows as a picture."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from matplotlib import pyplot

from figures import COLOURS, MARKERS, save

from .page import Section

LEVELS = {"seed": ":", "instructions": "--"}  # arms that no training row changes


def plot_curves(section: Section, file: Path) -> None:
    """A line per method through the seeds' means, its seeds as a band; untrained arms are level lines."""
    figure, axes = pyplot.subplots(figsize=(6.4, 4.2), layout="constrained")
    for colour, marker, (title, points) in zip(COLOURS, MARKERS, section.curves.items(), strict=False):
        sizes = sorted(points)
        values = [[100 * one for one in points[size]] for size in sizes]
        axes.plot(sizes, list(map(fmean, values)), color=colour, marker=marker, label=title)
        axes.fill_between(sizes, list(map(min, values)), list(map(max, values)), color=colour, linewidth=0, alpha=0.15)
    for row in section.rows(section.main_size):
        if row.arm.method in LEVELS:
            style = LEVELS[row.arm.method]
            axes.axhline(100 * row.accuracy, color="grey", linestyle=style, label=row.arm.title)
    axes.set(xscale="log", xlabel="training rows", ylabel="accuracy in the test (%)")
    axes.set_xticks(section.sizes, labels=[f"{size:,}" for size in section.sizes])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    axes.set_title(f"{section.series.model}, {section.series.task}", fontsize=10)
    save(figure, file)
