"""The digests of the rows a prompt has seen: none is missed, few others are taken for one, and they stay small."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from embedgrad_cli.config.task_schema import WorkedExample
from embedgrad_cli.storage.results_record import DataReport
from embedgrad_cli.tasks.row_filter import MOST_BITS, RowFilter
from embedgrad_cli.tasks.rows import Row
from embedgrad_cli.tasks.splits import Splits


def rows(numbers: Iterable[int], choices: tuple[str, ...] = ("yes", "no")) -> list[Row]:
    return [Row(f"train:{n}", f"Is {n} a prime number?", "yes", "yes", choices) for n in numbers]


def splits(train: list[Row], validation: list[Row] | None = None, test: list[Row] | None = None) -> Splits:
    report = DataReport(duplicates_removed=0, contradictions=[], overlaps_removed={})
    return Splits(train, validation or [], test or [], "a hash", report)


def read_back(seen_rows: RowFilter) -> RowFilter:
    return RowFilter.from_bytes(seen_rows.to_bytes(), seen_rows.parameters, seen_rows.salt)


@pytest.mark.parametrize("count", [1, 2, 9, 1_000, 40_000])
def test_no_row_is_missed_after_a_round_trip(count: int) -> None:
    made = splits(rows(range(count)), rows(range(count, 2 * count)), rows(range(2 * count, 3 * count)))
    seen_rows = RowFilter.of(made)
    again = read_back(seen_rows)
    assert again.numbers.tolist() == seen_rows.numbers.tolist()
    assert again.to_bytes() == seen_rows.to_bytes()
    assert all(again.contains(made.train))
    assert all(again.contains(made.validation))
    assert sum(again.contains(made.test)) <= count // 100  # chance hits, in the largest


def test_the_same_rows_in_any_order_give_the_same_bytes() -> None:
    shuffled = rows(range(500))
    random.Random(1).shuffle(shuffled)
    assert RowFilter.of(splits(shuffled)).to_bytes() == RowFilter.of(splits(rows(range(500)))).to_bytes()


@pytest.mark.parametrize(("count", "bits"), [(23_529, MOST_BITS), (50_000, 14), (100_000, 6), (110_000, 6)])
def test_size_and_chance_hits_are_as_promised(count: int, bits: int) -> None:
    seen_rows = RowFilter.of(splits(rows(range(count))))
    assert seen_rows.parameters.bits == bits
    assert len(seen_rows.to_bytes()) <= max(100_000, count)
    hits, tried = sum(seen_rows.contains(rows(range(count, count + 20_000)))), 20_000
    assert seen_rows.false_positive_rate == 2.0**-bits
    assert hits <= 1.2 * tried * seen_rows.false_positive_rate + 4


def test_white_space_and_the_choices_names_do_not_hide_a_row() -> None:
    seen_rows = RowFilter.of(splits(rows(range(9))))
    spaced = [Row("x:0", f"  Is {n}\na  prime number? ", "B", "B", ("A", "B")) for n in range(9)]
    assert all(seen_rows.contains(spaced))
    assert not any(seen_rows.contains(rows(range(9, 99))))


def test_rows_that_only_their_choices_tell_apart() -> None:
    def row(*choices: str) -> Row:
        return Row("x:0", "Which is larger?", choices[0], choices[0], choices)

    seen_rows = read_back(RowFilter.of(splits([row("a mouse", "a cat"), *rows([1])], test=[row("a cat", "a dog")])))
    assert seen_rows.contains([row("a mouse", "a cat"), row("a cat", "a mouse"), row("a cat", "a dog")]) == [
        True,
        True,
        False,
    ]
    assert seen_rows.contains(rows([1], choices=("A", "B"))) == [True], "its query alone is enough"


def test_worked_examples_are_rows_that_the_prompt_has_seen() -> None:
    made = splits(rows([1]))
    made.fewshot.append(WorkedExample("Is 7 a  prime number?", "yes"))
    assert RowFilter.of(made).contains(rows([7, 8])) == [True, False]


def test_bytes_that_are_no_filter_are_refused() -> None:
    seen_rows = RowFilter.of(splits(rows(range(20))))
    content = seen_rows.to_bytes()
    for wrong in (content[:-1], content + b"x", b"", bytes(len(content))):
        with pytest.raises(ValueError, match="digests"):
            RowFilter.from_bytes(wrong, seen_rows.parameters, seen_rows.salt)
