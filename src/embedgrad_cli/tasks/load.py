"""The data of a task: files -> rows (query, target, answer) -> no repetitions -> train, validation, test.

splits = load(config.task, config.seed)
splits.train[0].query, splits.train[0].target, splits.report.counts
"""

from __future__ import annotations

import logging
from dataclasses import replace

from embedgrad_cli.config.task_schema import TaskConfig
from embedgrad_cli.errors import DataError
from embedgrad_cli.storage.results_record import BrokenRows
from embedgrad_cli.tasks.defects import Defects
from embedgrad_cli.tasks.rows import Row, RowMaker
from embedgrad_cli.tasks.sources import read_sources
from embedgrad_cli.tasks.splits import Splits, make_splits, rows_hash

__all__ = ["Row", "Splits", "load", "rows_hash"]

log = logging.getLogger(__name__)


def load(task: TaskConfig, seed: int) -> Splits:
    """Read the task's data and split it. The same files, settings and seed give the same splits.

    Raises:
        DataError: a file, a row or a size is not what the task's settings say; all defects of all files are
            reported together.
        ConfigError: the task's settings contradict themselves.
    """
    maker, defects, rows = RowMaker(task), Defects(), dict[str, list[Row]]()
    sources = read_sources(task)
    for split, source in sources.items():
        try:
            rows[split] = maker.rows(source, defects)
        except DataError as error:
            defects.add_file(str(error).rstrip("."))
    if not defects.files:
        maker.check_kept(defects)
    defects.raise_if_any(skip_rows=task.broken == "skip")
    splits = make_splits(rows, task, seed)
    revision = next((source.revision for source in sources.values()), None)
    splits = replace(splits, report=replace(splits.report, revision=revision))
    if defects.num_rows:
        broken = BrokenRows(count=defects.num_rows, rows=defects.lines)
        splits = replace(splits, report=replace(splits.report, broken_rows_skipped=broken))
        log.warning("%d broken rows left out: %s", defects.num_rows, "; ".join(defects.lines))
    _warn_of_cut_targets(splits, task)
    log.info("task %s: %s", task.name, splits.report.to_json())
    return splits


def _warn_of_cut_targets(splits: Splits, task: TaskConfig) -> None:
    """An answer like such a target would be cut in it, though training asks for all of it."""
    rows = [*splits.train, *splits.validation, *splits.test] if task.kind == "generation" else []
    for stop in task.stop or []:
        cut = [row.id for row in rows if stop in row.target]
        if cut:
            log.warning("task.stop: %r stands in %d of %d targets, first in %s", stop, len(cut), len(rows), cut[0])
