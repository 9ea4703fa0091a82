"""TensorBoard: event files in `tensorboard/` of the run directory, or below `tracker.place`.

It has no place for files, so the final text says where those of the run are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from embedgrad_cli.tracking.tracker import Outcome, Point, Table, TrackedRun


class TensorBoard:
    """Writes event files. A run that goes on adds one to those of the same folder."""

    def begin(self, run: TrackedRun) -> tuple[str, str]:
        place = run.settings.place
        folder = Path(place) / run.settings.project / run.name if place else run.directory / "tensorboard"
        self.parameters = run.parameters
        self.writer = SummaryWriter(str(folder))
        if run.run_id is None:
            rows = tuple(run.parameters.items())
            self.writer.add_text("parameters", markdown(Table("parameters", ("setting", "value"), rows)), 0)
        return run.name, str(folder)

    def log(self, points: Sequence[Point]) -> None:
        for point in points:
            for name, value in point.values.items():
                self.writer.add_scalar(name, value, point.step)
        self.writer.flush()

    def end(self, outcome: Outcome) -> None:
        if outcome.values:
            parts = [outcome.verdict, *map(markdown, outcome.tables), *(f"`{file}`" for file in outcome.files)]
            self.writer.add_text("results", "\n\n".join(part for part in parts if part), 0)
            for name, value in outcome.values.items():
                self.writer.add_scalar(name, value, 0)
            file_writer = self.writer._get_file_writer()
            for summary in hparams(self.parameters, outcome.values):  # for the tab HPARAMS, in the same folder
                file_writer.add_summary(summary)
        self.writer.close()


def markdown(table: Table) -> str:
    """A table as TensorBoard shows it. A cell's own marks are those of a text, not of a table."""
    lines = [table.columns, tuple("---" for _ in table.columns), *table.rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: str | float | None) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)[1:-1].replace("|", "\\|") if value else " "
    return " " if value is None else f"{value:.4g}"
