"""`tracker.json`: the tracker's run that shows a run directory, and how much of it the tracker has."""

from __future__ import annotations

from dataclasses import dataclass

from embedgrad_cli.storage.record import Record


@dataclass(frozen=True, kw_only=True)
class TrackerRecord(Record):
    """Kept so that a run which goes on does so in the same run of the tracker, with no point there twice.

    `name`, `project` and `place` are the settings; `run_id` is the tracker's, `where` where a person finds it.
    `step` and `validated` are the last line of metrics.jsonl that was handed on: of a validation, or of a step.
    `ended`: everything was handed on, the final table and the files included.
    """

    name: str
    project: str
    place: str | None = None
    run_id: str
    where: str
    step: int = -1
    validated: bool = False
    ended: bool = False
