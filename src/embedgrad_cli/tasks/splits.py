"""Train, validation and test without a shared example: clean first, then hold out, then limit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from embedgrad_cli.config.task_schema import TaskConfig, WorkedExample
from embedgrad_cli.errors import ConfigError, DataError
from embedgrad_cli.storage.results_record import DataReport
from embedgrad_cli.tasks.deduplicate import deduplicate, normalise
from embedgrad_cli.tasks.rows import Row

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Splits:
    """The rows that train, select and test a prompt; no query is in two of them.

    `hash` names exactly these rows in these splits. `fewshot` are the worked examples that every query is shown with;
    none of them is a row of a split. `report` says what happened to the rows that were read. `demonstrations` are rows
    that were taken out of train for the seed prompt; in `hash` they count as rows of train.
    """

    train: list[Row]
    validation: list[Row]
    test: list[Row]
    hash: str
    report: DataReport
    fewshot: list[WorkedExample] = field(default_factory=list)
    demonstrations: list[Row] = field(default_factory=list)

    def rows_of(self, split: str) -> list[Row]:
        """The rows of train, validation or test, by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[split]

    @property
    def content_digest(self) -> str:
        """A sha256 of all that the rows of each split say, in their order, and of the worked examples.

        Unlike `hash` it knows the order, which a training depends on, and ids, choices and answers.
        """
        total = hashlib.sha256()
        for name in SPLITS:
            for row in self.rows_of(name):
                total.update(_line(name, row.id, row.query, row.target, row.answer, row.choices, dict(row.fields)))
        for example in self.fewshot:
            total.update(_line("fewshot", example.query, example.target))
        for row in self.demonstrations:
            total.update(_line("demonstrations", row.id, row.query, row.target))
        return total.hexdigest()

    def without_demonstrations(self, drawn: list[Row]) -> Splits:
        """The same splits with these rows of train as `demonstrations` instead."""
        ids = {row.id: None for row in drawn}
        train = [row for row in self.train if row.id not in ids]
        counts = {**(self.report.counts or {}), "train": len(train)}
        report = replace(self.report, demonstrations=list(ids), counts=counts)
        return replace(self, train=train, demonstrations=drawn, report=report)


def make_splits(read: dict[str, list[Row]], task: TaskConfig, seed: int) -> Splits:
    """Clean the rows that were read, hold out the splits that were not, and cut each to its wanted size.

    Raises:
        DataError: too few rows for the sizes asked for.
        ConfigError: a held-out split has no size, or a fold no number.
    """
    rows, report = deduplicate(read)
    order, all_rows = HashOrder(seed), len(rows["train"])
    for name in ("test", "validation"):  # test first, so that its rows do not depend on the validation's size
        if name not in rows:
            is_fold = name == "test" and task.split.folds is not None
            size = None if is_fold else _rows_wanted(task, name, all_rows)
            train = rows["train"]
            rows[name] = _fold(train, task, order) if is_fold else _held_out(train, task, name, order, size)
            chosen = {id(row) for row in rows[name]}
            rows["train"] = [row for row in train if id(row) not in chosen]
    examples, drawn = _take_examples(rows, task, order)
    for name in read:
        wanted = _rows_wanted(task, name, len(rows[name]))
        _check_size(task, name, rows[name], wanted)
        rows[name] = order.first(rows[name], wanted)
    report = replace(report, fewshot=drawn, counts={name: len(rows[name]) for name in SPLITS})
    return Splits(rows["train"], rows["validation"], rows["test"], split_hash(rows), report, examples)


@dataclass(frozen=True)
class HashOrder:
    """A seeded order of rows that depends on their queries alone, not on their place in a file."""

    seed: int

    def first(self, rows: list[Row], size: int | None) -> list[Row]:
        """The `size` first rows in this order (None: all), given back in the order they came in."""
        if size is None or size >= len(rows):
            return rows
        chosen = {id(row) for row in self.sorted(rows)[:size]}
        return [row for row in rows if id(row) in chosen]

    def sorted(self, rows: list[Row]) -> list[Row]:
        """All rows in this order."""
        return sorted(rows, key=self._key)

    def _key(self, row: Row) -> bytes:
        return hashlib.sha256(f"{self.seed}\n{normalise(row.query)}".encode()).digest()


def split_hash(rows: dict[str, list[Row]]) -> str:
    """A sha256 over the queries and targets of each split, whatever their order."""
    total = hashlib.sha256()
    for name in SPLITS:
        total.update(f"{name}\n".encode())
        for digest in sorted(_digest(row.query, row.target) for row in rows[name]):
            total.update(digest)
    return total.hexdigest()


def row_hash(row: Row) -> str:
    """A sha256 over a row's content: query and target."""
    return _digest(row.query, row.target).hex()


def rows_hash(rows: Iterable[Row]) -> str:
    """A sha256 over the questions asked and the answers expected, whatever their order: it names a test set.

    Unlike `split_hash` it knows nothing of training, and not of the target's wording, which only training reads.
    """
    return hashlib.sha256(b"".join(sorted(_digest(row.query, row.answer) for row in rows))).hexdigest()


def _line(*values: object) -> bytes:
    return (json.dumps(values, sort_keys=True) + "\n").encode()


def _digest(query: str, rest: str) -> bytes:
    # The query's own length keeps ("ab", "c") and ("a", "bc") apart.
    return hashlib.sha256(f"{len(query)}\n{query}{rest}".encode()).digest()


def _fold(rows: list[Row], task: TaskConfig, order: HashOrder) -> list[Row]:
    """The rows of fold `task.fold`: every k-th in the seeded order, so the folds differ by one row at most."""
    folds, fold = task.split.folds or 0, task.fold
    if fold is None or fold >= folds:
        raise ConfigError([f"task.fold: {fold} is not one of the {folds} folds, counted from 0."])
    if len(rows) <= folds:
        raise DataError(
            f"task {task.name}: task.split.folds={folds} folds are to be cut from {len(rows)} rows, once repeated and "
            "contradictory rows are gone. Give fewer folds, or more rows."
        )
    chosen = {id(row) for row in order.sorted(rows)[fold::folds]}
    return [row for row in rows if id(row) in chosen]


def _held_out(rows: list[Row], task: TaskConfig, name: str, order: HashOrder, size: int | None) -> list[Row]:
    if size is None:
        raise ConfigError(
            [f"task.split.num_{name} is missing: task.split.{name} is null, so so many rows are held out of train."]
        )
    if size >= len(rows):
        raise DataError(
            f"task {task.name}: task.split.num_{name}={size} rows are to be held out of train, which has only "
            f"{len(rows)} left once repeated, contradictory and already held-out rows are gone, and training needs "
            f"at least one. Give a smaller task.split.num_{name}, or more rows."
        )
    return order.first(rows, size)


def _rows_wanted(task: TaskConfig, name: str, available: int) -> int | None:
    """The size asked for in rows; a number below 1 is a fraction of those there are, and at least one row."""
    size: int | float | None = getattr(task.split, f"num_{name}")
    if size is not None and size < 1:
        return max(round(size * available), 1)
    return None if size is None else int(size)


def _take_examples(
    rows: dict[str, list[Row]], task: TaskConfig, order: HashOrder
) -> tuple[list[WorkedExample], list[str]]:
    """The worked examples, and the ids of those drawn from train. `rows` loses every row that one of them answers."""
    if isinstance(task.fewshot, list):
        shown = {normalise(example.query) for example in task.fewshot}
        for name in SPLITS:
            rows[name] = [row for row in rows[name] if normalise(row.query) not in shown]
        return task.fewshot, []
    if not task.fewshot:
        return [], []
    if task.fewshot >= len(rows["train"]):
        raise DataError(
            f"task {task.name}: task.fewshot={task.fewshot} worked examples are to be taken out of train, which has "
            f"only {len(rows['train'])} rows, and training needs at least one. Give a smaller number."
        )
    drawn = order.sorted(rows["train"])[: task.fewshot]
    ids = {row.id: None for row in drawn}
    rows["train"] = [row for row in rows["train"] if row.id not in ids]
    return [WorkedExample(row.query, row.target) for row in drawn], list(ids)


def _check_size(task: TaskConfig, name: str, rows: list[Row], wanted: int | None) -> None:
    if not rows:
        raise DataError(
            f"task {task.name}: no row is left in the {name} split once repeated rows, contradictory rows and rows "
            f"that a later split also holds are gone. Give other files."
        )
    if name != "train" and wanted is not None and wanted > len(rows):
        raise DataError(
            f"task {task.name}: task.split.num_{name}={wanted} rows are asked for, but the {name} split has "
            f"{len(rows)} once repeated, contradictory and overlapping rows are gone. Give a smaller "
            f"task.split.num_{name}, or null for all."
        )
