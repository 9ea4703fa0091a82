"""The data of a task: files -> rows (query, target, answer) -> no repetitions -> train, validation, test.

splits = load(config.task, config.seed)
splits.train[0].query, splits.train[0].target, splits.report["counts"]
"""

from __future__ import annotations

import logging

from embedgrad_cli.schema import TaskConfig
from embedgrad_cli.tasks.rows import Defects, Row, RowMaker
from embedgrad_cli.tasks.sources import read_sources
from embedgrad_cli.tasks.splits import Splits, make_splits, rows_hash

__all__ = ["Row", "Splits", "load", "rows_hash"]

log = logging.getLogger(__name__)


def load(task: TaskConfig, seed: int) -> Splits:
    """Read the task's data and split it. The same files, settings and seed give the same splits.

    Raises:
        DataError: a file, a row or a size is not what the task's settings say; all defects of the rows are
            reported together.
        ConfigError: the task's settings contradict themselves.
    """
    maker, defects = RowMaker(task), Defects()
    rows = {split: maker.rows(source, defects) for split, source in read_sources(task).items()}
    defects.raise_if_any()
    splits = make_splits(rows, task, seed)
    log.info("task %s: %s", task.name, splits.report)
    return splits
