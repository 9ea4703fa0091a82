"""Train, validation and test without a shared example: clean first, then hold out, then limit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from embedgrad_cli.errors import ConfigError, DataError
from embedgrad_cli.schema import TaskConfig
from embedgrad_cli.tasks.rows import Row

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Splits:
    """The rows that train, select and test a prompt; no query is in two of them.

    `hash` names exactly these rows in these splits. `report` says what happened: `counts` (rows per split),
    `duplicates_removed`, `contradictions` (ids of rows whose query occurs with different answers) and
    `overlaps_removed` (rows of train or validation that a later split also holds).
    """

    train: list[Row]
    validation: list[Row]
    test: list[Row]
    hash: str
    report: dict[str, Any]


def make_splits(read: dict[str, list[Row]], task: TaskConfig, seed: int) -> Splits:
    """Clean the rows that were read, hold out the splits that were not, and cut each to its wanted size.

    Raises:
        DataError: too few rows for the sizes asked for.
        ConfigError: a held-out split has no size.
    """
    cleaned, report = clean(read)
    wanted = {name: getattr(task.split, f"num_{name}") for name in SPLITS}
    rows = dict(cleaned)
    order = HashOrder(seed)
    for name in ("test", "validation"):  # test first, so that its rows do not depend on the validation's size
        if name not in rows:
            size = _held_out_size(task, name, len(rows["train"]))
            held_out = {id(row) for row in order.first(rows["train"], size)}
            rows[name] = [row for row in rows["train"] if id(row) in held_out]
            rows["train"] = [row for row in rows["train"] if id(row) not in held_out]
    for name in SPLITS:
        _check_size(task, name, rows[name], wanted[name])
        rows[name] = order.first(rows[name], wanted[name])
    report["counts"] = {name: len(rows[name]) for name in SPLITS}
    return Splits(rows["train"], rows["validation"], rows["test"], split_hash(rows), report)


def clean(read: dict[str, list[Row]]) -> tuple[dict[str, list[Row]], dict[str, Any]]:
    """Remove repeated and contradictory rows within each split, then rows that a later split also holds.

    The same query with the same answer is a repetition (the first stays); with different answers it is a
    contradiction (none stays). Queries are compared without regard to white space.
    """
    rows, repeated, contradictions = {}, 0, list[str]()
    for name, before in read.items():
        rows[name], removed, contradicting = _clean_one(before)
        repeated += removed
        contradictions += contradicting
    overlaps, taken = {}, set[str]()
    for name in reversed(SPLITS):  # test wins, then validation
        if name in rows:
            kept = [row for row in rows[name] if normalise(row.query) not in taken]
            overlaps[name] = len(rows[name]) - len(kept)
            rows[name] = kept
            taken.update(normalise(row.query) for row in kept)
    removed_overlaps = {name: overlaps.get(name, 0) for name in ("train", "validation")}
    report = {
        "duplicates_removed": repeated,
        "contradictions": contradictions,
        "overlaps_removed": removed_overlaps,
    }
    return rows, report


def _clean_one(rows: list[Row]) -> tuple[list[Row], int, list[str]]:
    """One split: the rows that stay, the number of repetitions removed, the ids of contradictory rows."""
    answers: dict[str, set[str]] = {}
    for row in rows:
        answers.setdefault(normalise(row.query), set()).add(row.answer)
    kept, seen, contradictions = [], set[str](), []
    for row in rows:
        query = normalise(row.query)
        if len(answers[query]) > 1:
            contradictions.append(row.id)
        elif query not in seen:
            seen.add(query)
            kept.append(row)
    return kept, len(rows) - len(kept) - len(contradictions), contradictions


@dataclass(frozen=True)
class HashOrder:
    """A seeded order of rows that depends on their queries alone, not on their place in a file."""

    seed: int

    def first(self, rows: list[Row], size: int | None) -> list[Row]:
        """The `size` first rows in this order (None: all), given back in the order they came in."""
        if size is None or size >= len(rows):
            return rows
        chosen = {id(row) for row in sorted(rows, key=self._key)[:size]}
        return [row for row in rows if id(row) in chosen]

    def _key(self, row: Row) -> bytes:
        return hashlib.sha256(f"{self.seed}\n{normalise(row.query)}".encode()).digest()


def normalise(query: str) -> str:
    """The query with every run of white space as one blank."""
    return " ".join(query.split())


def split_hash(rows: dict[str, list[Row]]) -> str:
    """A sha256 over the queries and targets of each split, whatever their order."""
    total = hashlib.sha256()
    for name in SPLITS:
        total.update(f"{name}\n".encode())
        for digest in sorted(_digest(row.query, row.target) for row in rows[name]):
            total.update(digest)
    return total.hexdigest()


def rows_hash(rows: Iterable[Row]) -> str:
    """A sha256 over the questions asked and the answers expected, whatever their order: it names a test set.

    Unlike `split_hash` it knows nothing of training, and not of the target's wording, which only training reads.
    """
    return hashlib.sha256(b"".join(sorted(_digest(row.query, row.answer) for row in rows))).hexdigest()


def _digest(query: str, rest: str) -> bytes:
    # The query's own length keeps ("ab", "c") and ("a", "bc") apart.
    return hashlib.sha256(f"{len(query)}\n{query}{rest}".encode()).digest()


def _held_out_size(task: TaskConfig, name: str, available: int) -> int:
    size: int | None = getattr(task.split, f"num_{name}")
    if size is None:
        raise ConfigError(
            [f"task.split.num_{name} is missing: task.split.{name} is null, so so many rows are held out of train."]
        )
    if size >= available:
        raise DataError(
            f"task {task.name}: task.split.num_{name}={size} rows are to be held out of train, which has only "
            f"{available} left once repeated, contradictory and already held-out rows are gone, and training needs "
            f"at least one. Give a smaller task.split.num_{name}, or more rows."
        )
    return size


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
