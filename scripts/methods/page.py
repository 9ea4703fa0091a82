"""`docs/results.md` from finished cells."""

from __future__ import annotations

from collections.abc import Sequence

from .records import Finished
from .table import Row


def size_title(one: Finished) -> str:
    """Of a table: the model, the task and what everything was given."""
    series, counts = one.series, one.problem.counts
    train = series.settings["train"]
    return (
        f"{series.model}, {series.task}: {counts['train']} training rows, {train['steps']} steps of "
        f"{train['batch_size']}, {counts['test']} test rows"
    )


def at_end_note(rows: Sequence[Row]) -> list[str]:
    if not any(cell.at_end for row in rows for cell in row.arm.cells):
        return []
    return ["*: the smallest or largest learning rate that was tried; a better one may lie beyond."]


def frozen_note(finished: Sequence[Finished]) -> str:
    """Whether the base weights' hash was the same before and after every training."""
    trials = {one.cell.method: one.cell.trials for one in finished if one.cell.trials}
    changed = [name for name, runs in trials.items() if any(t.weights_before != t.weights_after for t in runs)]
    if changed:
        return f"The base weights CHANGED under: {', '.join(changed)}."
    return f"The base weights' sha256 was the same before and after every training of {', '.join(trials) or 'none'}."
