"""Trackio: a folder here, or a Space or a server by its own variables (TRACKIO_SPACE_ID, TRACKIO_SERVER_URL)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from embedgrad_cli.tracking.tracker import Outcome, Point, TrackedRun, identifier, plain_name


class Trackio:
    """A run of `project`, a sweep as its group. Trackio knows runs by their names, so a name ends in an id."""

    def begin(self, run: TrackedRun) -> tuple[str, str]:
        if run.settings.place:
            folder = Path(run.settings.place).absolute()
            folder.mkdir(parents=True, exist_ok=True)
            os.environ["TRACKIO_DIR"] = str(folder)  # read while it is imported
        import trackio
        from trackio.utils import TRACKIO_DIR

        self.trackio = trackio
        name = run.run_id or f"{plain_name(run.name)}-{identifier()}"
        self.run = trackio.init(
            project=run.settings.project,
            name=name,
            group=run.group,
            config=dict(run.parameters),
            resume="must" if run.run_id else "never",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        self.step = max(run.order // 2, 0)
        return name, self.run.url or str(TRACKIO_DIR)

    def log(self, points: Sequence[Point]) -> None:
        for point in points:
            self.step = point.step
            self.trackio.log(point.values, step=point.step)

    def end(self, outcome: Outcome) -> None:
        tables = {
            f"results/{table.name}": self.trackio.Table(
                columns=list(table.columns), data=[list(row) for row in table.rows]
            )
            for table in outcome.tables
        }
        if outcome.values:
            self.trackio.log({**outcome.values, "verdict": outcome.verdict, **tables}, step=self.step)
        if outcome.files:
            artifact = self.trackio.Artifact(str(self.run.name).replace("/", "-"), type="embedgrad")
            for file in outcome.files:
                artifact.add_file(str(file))
            self.trackio.log_artifact(artifact)
        self.trackio.finish()
