"""Rows of `bench_growth.py` as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot
from matplotlib.axes import Axes

from figures import COLOURS, MARKERS, save

SIDES = {"embedgrad": ("", COLOURS[0], MARKERS[0]), "PEFT": ("peft_", COLOURS[1], MARKERS[1])}
LABELS = {"prompt": "prompt length (tokens)", "batch": "batch (examples)", "parameters": "model (parameters)"}
QUANTITIES = {"seconds": ("seconds per step", 1), "memory": ("peak memory of a step (MB)", 1e6)}


def plot_growth(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """A column per varied quantity, time above memory, both axes logarithmic."""
    figure, axes = pyplot.subplots(
        len(QUANTITIES), len(LABELS), figsize=(12, 7), squeeze=False, sharey="row", layout="constrained"
    )
    for column, varied in enumerate(LABELS):
        points = [row for row in rows if row["varied"] == varied]
        for line, quantity in enumerate(QUANTITIES):
            _draw(axes[line][column], points, varied, quantity, named=column == 0)
    axes[0][0].legend(frameon=False)
    figure.suptitle(rows[0]["machine"], fontsize=10)
    save(figure, file)


def _draw(axes: Axes, points: Sequence[dict[str, Any]], varied: str, quantity: str, named: bool) -> None:
    label, unit = QUANTITIES[quantity]
    for side, (prefix, colour, marker) in SIDES.items():
        known = [(row[varied], row[prefix + quantity] / unit) for row in points if row[prefix + quantity]]
        axes.plot(*zip(*known, strict=True) if known else ((), ()), color=colour, marker=marker, label=side)
    axes.set(xscale="log", yscale="log", xlabel=LABELS[varied], ylabel=label if named else "")
    values = sorted({row[varied] for row in points})
    axes.set_xticks(values, labels=[_short(value) for value in values])
    axes.minorticks_off()
    axes.grid(alpha=0.3)


def _short(value: int) -> str:
    return f"{value / 1e9:.3g}B" if value >= 1e9 else f"{value / 1e6:.0f}M" if value >= 1e6 else str(value)
