"""MLflow, by its client: a folder with a database in it, a database, or a server.

Its own variables hold: MLFLOW_TRACKING_URI where `tracker.place` is null, MLFLOW_TRACKING_USERNAME, ….
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient, get_tracking_uri
from mlflow.entities import Metric, Param
from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

from embedgrad_cli.tracking.tracker import Outcome, Point, TrackedRun, plain_name

STATES = {"finished": "FINISHED", "stopped": "KILLED"}
AT_ONCE = 100  # parameters, or metrics of so many points, in a request
DATABASE, FILES = "mlflow.db", "artifacts"  # in a folder; MLflow's store of plain files is no longer kept up


class MLflow:
    """A run of the experiment `project`, or `project/SWEEP`."""

    def begin(self, run: TrackedRun) -> tuple[str, str]:
        os.environ.setdefault("MLFLOW_ENABLE_ASYNC_LOGGING", "false")
        place = run.settings.place
        folder = Path(place).absolute() if place and "://" not in place else None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{folder / DATABASE}" if folder else place or get_tracking_uri()
        self.client = MlflowClient(tracking_uri=uri)
        where = str(folder) if folder else uri
        if run.run_id is not None:
            self.run_id = run.run_id
            self.client.update_run(self.run_id, status="RUNNING")
            return self.run_id, where
        experiment = f"{run.settings.project}/{run.group}" if run.group else run.settings.project
        files = (folder / FILES / plain_name(experiment)).as_uri() if folder else None
        known = self.client.get_experiment_by_name(experiment)
        number = known.experiment_id if known else self.client.create_experiment(experiment, artifact_location=files)
        self.run_id = self.client.create_run(number, run_name=run.name).info.run_id
        parameters = [Param(plain_name(key), value[:MAX_PARAM_VAL_LENGTH]) for key, value in run.parameters.items()]
        for start in range(0, len(parameters), AT_ONCE):
            self.client.log_batch(self.run_id, params=parameters[start : start + AT_ONCE])
        return self.run_id, where

    def log(self, points: Sequence[Point]) -> None:
        now = int(1000 * time.time())
        for start in range(0, len(points), AT_ONCE):
            metrics = [
                Metric(plain_name(name), value, now, point.step)
                for point in points[start : start + AT_ONCE]
                for name, value in point.values.items()
            ]
            self.client.log_batch(self.run_id, metrics=metrics)

    def end(self, outcome: Outcome) -> None:
        if outcome.values:
            self.log([Point(0, outcome.values, 0)])
            self.client.set_tag(self.run_id, "verdict", outcome.verdict)
        for table in outcome.tables:
            columns = {name: [row[i] for row in table.rows] for i, name in enumerate(table.columns)}
            self.client.log_table(self.run_id, columns, f"{table.name}.json")
        for file in outcome.files:
            self.client.log_artifact(self.run_id, str(file))
        self.client.set_terminated(self.run_id, STATES.get(outcome.how, "FAILED"))
