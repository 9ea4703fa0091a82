"""Weights & Biases. Its own variables hold: WANDB_API_KEY, WANDB_MODE, WANDB_ENTITY, WANDB_BASE_URL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import wandb

from embedgrad_cli.tracking.tracker import Outcome, Point, TrackedRun, identifier

EXIT_CODES = {"finished": 0, "stopped": 130}  # all else is a failure: 1


class WeightsAndBiases:
    """A run of `project`, a sweep as its group. Its local files are in the run directory, or in `tracker.place`."""

    def begin(self, run: TrackedRun) -> tuple[str, str]:
        folder = Path(run.settings.place or run.directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(
            project=run.settings.project,
            name=run.name,
            group=run.group,
            id=run.run_id or identifier(),
            resume="allow",
            config=dict(run.parameters),
            dir=str(folder),
            settings=wandb.Settings(silent=True, console="off", save_code=False, disable_git=True, disable_code=True),
        )
        # The steps of W&B must not fall, so they count points; the curves are over embedgrad's.
        self.run.define_metric("step", hidden=True)
        self.run.define_metric("*", step_metric="step")
        self.order = run.order
        return str(self.run.id), self.run.url or str(folder / "wandb")

    def log(self, points: Sequence[Point]) -> None:
        for point in points:
            self.order = point.order
            self.run.log({"step": point.step, **point.values}, step=point.order)

    def end(self, outcome: Outcome) -> None:
        tables = {
            f"results/{table.name}": wandb.Table(columns=list(table.columns), data=[list(row) for row in table.rows])
            for table in outcome.tables
        }
        pages = {f"files/{file.stem}": wandb.Html(str(file)) for file in outcome.files if file.suffix == ".html"}
        if outcome.values:
            self.run.log({**tables, **pages}, step=self.order + 1)
            self.run.summary.update({**outcome.values, "verdict": outcome.verdict})
        if outcome.files:
            artifact = wandb.Artifact(f"embedgrad-{self.run.id}", type="embedgrad")
            for file in outcome.files:
                artifact.add_file(str(file))
            self.run.log_artifact(artifact)
        self.run.finish(exit_code=EXIT_CODES.get(outcome.how, 1))
