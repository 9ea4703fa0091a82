"""The process that follows a run directory: `python -m embedgrad_cli.tracking DIR`, which `tracking.tracked` starts.

On stdin it gets the settings of the tracker as a line of JSON, and how the run ended as another one. When its end comes
without that, the run's process is gone. On stdout it says where the run is shown, and what went wrong, a line of JSON
each. What a tracker prints goes nowhere: it may hold what is not to be written down.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TextIO

from filelock import FileLock

from embedgrad_cli.config.schema import TrackerConfig
from embedgrad_cli.errors import first_line
from embedgrad_cli.storage.files import write_json
from embedgrad_cli.storage.tracker_record import TrackerRecord
from embedgrad_cli.tracking import find_tracker
from embedgrad_cli.tracking.contents import names_of, new_points, order_of, outcome_of, parameters
from embedgrad_cli.tracking.secrets import without_secrets
from embedgrad_cli.tracking.tracker import TrackedRun, Tracker

EVERY = 1.0  # seconds between two looks at the run directory
AT_ONCE = 200  # points that are handed on together


class Follower:
    """Hands on what is new in a run directory.

    Every call of the tracker has `timeout` seconds; then this process ends, by an alarm that nothing can hold up.
    """

    def __init__(self, directory: Path, settings: TrackerConfig) -> None:
        self.directory, self.settings = directory, settings
        self.config, self.metrics = directory / "config.yaml", directory / "metrics.jsonl"
        self.file = directory / "tracker.json"
        # Of a run that was killed and begun again, the process that followed it before may still be at work.
        self.lock = FileLock(directory / ".tracker.lock")
        self.tracker: Tracker | None = None
        self.record: TrackerRecord | None = None

    @property
    def is_done(self) -> bool:
        """Everything was handed on by an earlier process."""
        before = self._before()
        return before is not None and before.ended

    def look(self) -> str | None:
        """Begin the tracker's run once there is one here, and hand on its new points.

        Returns: where a person finds it, the first time.
        """
        where = None
        if self.record is None:
            if not self.config.exists():
                return None
            self.record = self._begin()
            where = self.record.where
        points = new_points(self.metrics, self.record.step, self.record.validated)
        for start in range(0, len(points), AT_ONCE):
            some = points[start : start + AT_ONCE]
            last = some[-1]
            # Written down first: what is lost with this process is missing there, and never there twice.
            self._keep(replace(self.record, step=last.step, validated=bool(last.order % 2)))
            with self._limit():
                self._known().log(some)
        return where

    def end(self, how: str) -> None:
        """Hand on what is left, and how the run ended."""
        if self.record is None:
            return
        outcome = outcome_of(self.directory, how)
        with self._limit():
            self._known().end(outcome)
        self._keep(replace(self.record, ended=how == "finished"))

    def _begin(self) -> TrackerRecord:
        with self._limit():
            self.lock.acquire()
        before = self._before()
        name, group = names_of(self.directory)
        run = TrackedRun(
            directory=self.directory.absolute(),
            settings=self.settings,
            name=self.settings.run or name,
            group=group,
            run_id=before.run_id if before else None,
            order=order_of(before.step, before.validated) if before else -1,
            parameters=parameters(self.config),
        )
        with self._limit():
            self.tracker = find_tracker(self.settings.name)
            run_id, where = self.tracker.begin(run)
        now = before or TrackerRecord(
            name=self.settings.name,
            project=self.settings.project,
            place=self.settings.place,
            run_id=run_id,
            where=where,
        )
        return self._keep(replace(now, where=without_secrets(where)))

    def _before(self) -> TrackerRecord | None:
        """What an earlier process left, if it was by the same tracker."""
        if not self.file.exists():
            return None
        record = TrackerRecord.read(self.file)
        same = (record.name, record.project, record.place) == (
            self.settings.name,
            self.settings.project,
            self.settings.place,
        )
        return record if same else None

    def _keep(self, record: TrackerRecord) -> TrackerRecord:
        self.record = record
        write_json(self.file, record)
        return record

    def _known(self) -> Tracker:
        assert self.tracker is not None
        return self.tracker

    @contextmanager
    def _limit(self) -> Iterator[None]:
        if not hasattr(signal, "setitimer"):  # on Windows; the run's process still waits no longer at the end
            yield
            return
        signal.setitimer(signal.ITIMER_REAL, self.settings.timeout)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def main(directory: Path, orders: TextIO, answers: TextIO) -> int:
    """Follow a run directory until its run has ended. Returns: the exit code."""

    def say(**words: str) -> None:
        answers.write(json.dumps(words) + "\n")
        answers.flush()

    follower = Follower(directory, TrackerConfig(**json.loads(orders.readline())))
    ends = SimpleQueue[str]()
    threading.Thread(target=lambda: ends.put(orders.readline().strip() or "failed"), daemon=True).start()
    how = ""
    try:
        if follower.is_done:
            return 0
        while not how:
            with suppress(Empty):
                how = ends.get(timeout=EVERY)
            if where := follower.look():
                say(where=where)
        follower.end(how)
    except Exception as error:
        say(failure=without_secrets(f"{type(error).__name__}: {first_line(error)}"))
        return 1
    return 0


if __name__ == "__main__":
    said = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    sys.exit(main(Path(sys.argv[1]), sys.stdin, said))
