"""Repeated and contradictory rows go before anything is split."""

from __future__ import annotations

from embedgrad_cli.storage.results_record import DataReport
from embedgrad_cli.tasks.rows import Row


def deduplicate(read: dict[str, list[Row]]) -> tuple[dict[str, list[Row]], DataReport]:
    """Remove repeated and contradictory rows within each split, then rows that a later split also holds.

    The same question with the same answer is a repetition (the first stays); with different answers it is a
    contradiction (none stays). Questions are compared without regard to white space.

    Args:
        read: the rows of the splits that were read, in the order train, validation, test.
    """
    rows, asked, repeated, contradictions = {}, dict[str, dict[Question, Row]](), 0, list[str]()
    for name, before in read.items():
        asked[name], contradicting = _clean_one(before)
        repeated += len(before) - len(asked[name]) - len(contradicting)
        contradictions += contradicting
    overlaps, taken = {}, set[Question]()
    for name in reversed(list(read)):  # test wins, then validation
        rows[name] = [row for one, row in asked[name].items() if one not in taken]
        overlaps[name] = len(asked[name]) - len(rows[name])
        taken.update(asked[name])
    rows = {name: rows[name] for name in read}
    report = DataReport(
        duplicates_removed=repeated,
        contradictions=contradictions,
        overlaps_removed={name: overlaps.get(name, 0) for name in ("train", "validation")},
    )
    return rows, report


Question = tuple[str, tuple[str, ...]]


def question(row: Row) -> Question:
    """What a row asks: its query, and the choices, in any order, which may be its own and stand outside the query."""
    return normalise(row.query), tuple(sorted(row.choices))


def normalise(query: str) -> str:
    """The query with every run of white space as one blank."""
    normal = " ".join(query.split())
    return query if normal == query else normal  # the same object: a large file's texts are held once


def _clean_one(rows: list[Row]) -> tuple[dict[Question, Row], list[str]]:
    """One split: the rows that stay, by what they ask, and the ids of contradictory rows."""
    questions = [question(row) for row in rows]
    first: dict[Question, Row] = {}
    contradicting = set[Question]()
    for asked, row in zip(questions, rows, strict=True):
        if first.setdefault(asked, row).answer != row.answer:
            contradicting.add(asked)
    kept = {asked: row for asked, row in first.items() if asked not in contradicting}
    return kept, [row.id for asked, row in zip(questions, rows, strict=True) if asked in contradicting]
