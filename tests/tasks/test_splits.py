"""Train, validation and test never share an example, and a split depends on rows and seed alone."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from tests.tasks.make_task import HELD_OUT, make_task, words_task, write_lines, write_reviews

from embedgrad_cli.errors import ConfigError, DataError
from embedgrad_cli.tasks.load import Row, Splits, load, rows_hash
from embedgrad_cli.tasks.splits import normalise


def ids(splits: Splits) -> dict[str, list[str]]:
    return {name: [row.id for row in getattr(splits, name)] for name in ("train", "validation", "test")}


def test_repeated_and_contradictory_rows_are_removed(tmp_path: Path) -> None:
    pairs = [("good", "1"), ("so so", "1"), ("good ", "1"), ("so  so", "0"), ("bad", "0"), ("so\nso", "1")]
    write_reviews(tmp_path, train=pairs)
    splits = load(make_task(tmp_path), 0)
    assert [row.id for row in splits.train] == ["train:0", "train:4"]
    assert splits.report.duplicates_removed == 1
    assert splits.report.contradictions == ["train:1", "train:3", "train:5"]
    assert splits.report.counts == {"train": 2, "validation": 1, "test": 1}


def test_another_solution_with_the_same_answer_is_a_repetition(tmp_path: Path) -> None:
    solutions = ["1 + 1 = 2\n#### 2", "twice 1 is 2\n#### 2"]
    rows = [{"question": "What is 1 + 1?", "answer": solution} for solution in solutions]
    rows += [{"question": f"What is {n}?", "answer": f"#### {n}"} for n in range(9)]
    splits = load(words_task(write_lines(tmp_path / "train.jsonl", rows).parent), 0)
    assert splits.report.duplicates_removed == 1
    assert splits.report.contradictions == []


def test_rows_that_a_later_split_holds_are_removed(tmp_path: Path) -> None:
    write_reviews(
        tmp_path,
        train=[("in test", "1"), ("in validation", "0"), ("train only", "1")],
        validation=[("in  validation", "0"), ("also in test", "1"), ("validation only", "1")],
        test=[("in test", "0"), ("also in test", "1")],
    )
    splits = load(make_task(tmp_path), 0)
    assert ids(splits) == {
        "train": ["train:2"],
        "validation": ["validation:0", "validation:2"],
        "test": ["test:0", "test:1"],
    }
    assert splits.report.overlaps_removed == {"train": 2, "validation": 1}


def test_the_order_of_its_choices_makes_no_other_question(tmp_path: Path) -> None:
    def row(*options: str, label: int) -> dict[str, object]:
        return {"text": "Which is larger?", "one": options[0], "two": options[1], "label": label}

    own = {"choices": ["{one}", "{two}"], "labels": {"0": "{one}", "1": "{two}"}}
    train = [row("a cat", "a dog", label=1), row("a mouse", "a dog", label=1), row("a dog", "a mouse", label=0)]
    write_lines(tmp_path / "train.jsonl", train)
    write_lines(tmp_path / "validation.jsonl", [row("a bee", "an ant", label=0)])
    write_lines(tmp_path / "test.jsonl", [row("a dog", "a cat", label=0)])
    splits = load(make_task(tmp_path, **own), 0)
    assert ids(splits) == {"train": ["train:1"], "validation": ["validation:0"], "test": ["test:0"]}
    assert splits.report.duplicates_removed == 1
    assert splits.report.overlaps_removed == {"train": 1, "validation": 0}


def many(folder: Path, order: list[int]) -> Path:
    folder.mkdir()
    rows = [{"text": f"film {number}", "label": number % 2} for number in order]
    return write_lines(folder / "train.jsonl", rows).parent


def test_held_out_rows_depend_on_seed_and_not_on_order(tmp_path: Path) -> None:
    order = list(range(40))
    shuffled = random.Random(1).sample(order, 40)
    task = make_task(many(tmp_path / "a", order), split=HELD_OUT)
    first, again, other = load(task, 0), load(task, 0), load(task, 1)
    moved = load(make_task(many(tmp_path / "b", shuffled), split=HELD_OUT), 0)
    assert ids(first) == ids(again)
    assert ids(first) != ids(other)
    assert {row.query for row in first.test} == {row.query for row in moved.test}
    assert first.hash == again.hash == moved.hash != other.hash
    assert [len(rows) for rows in ids(first).values()] == [35, 2, 3]


def test_the_hash_of_test_rows_knows_questions_and_answers_alone() -> None:
    rows = [Row("test:0", "1 + 1?", "1 + 1 = 2\n#### 2", "2"), Row("test:1", "2 + 2?", "#### 4", "4")]
    elsewhere = [Row("dev:8", "2 + 2?", "twice 2\n#### 4", "4"), Row("dev:9", "1 + 1?", "#### 2", "2")]
    others = [Row("test:0", "1 + 1?", "#### 3", "3"), Row("test:0", "1 + 1", "?#### 2", "?2")]
    assert rows_hash(rows) == rows_hash(elsewhere)
    assert len({rows_hash([row, rows[1]]) for row in (rows[0], *others)} | {rows_hash(rows[:1])}) == 4


@pytest.mark.parametrize("seed", range(20))
def test_no_query_is_in_two_splits(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    splits = {
        name: [(f"film  {draw.randrange(60)}", draw.choice("01")) for _ in range(60)] for name in ("train", "test")
    }
    write_reviews(tmp_path, **splits)
    loaded = load(make_task(tmp_path, split={"validation": None, "num_validation": 2}), seed)
    queries = [normalise(row.query) for rows in (loaded.train, loaded.validation, loaded.test) for row in rows]
    assert len(queries) == len(set(queries))
    assert all(re.fullmatch(r"(train|test):\d+", row) for rows in ids(loaded).values() for row in rows)


def test_limits_choose_by_hash_and_keep_the_order_of_the_file(tmp_path: Path) -> None:
    many(tmp_path / "a", list(range(40)))
    ten = ids(load(make_task(tmp_path / "a", split={**HELD_OUT, "num_train": 10}), 0))
    five = ids(load(make_task(tmp_path / "a", split={**HELD_OUT, "num_train": 5}), 0))
    assert len(ten["train"]) == 10
    assert set(five["train"]) < set(ten["train"])
    assert ten["train"] == sorted(ten["train"], key=lambda row: int(row.split(":")[1]))
    assert ten["train"] != [f"train:{n}" for n in range(10)]
    assert five["test"] == ten["test"]


def test_test_rows_do_not_depend_on_the_size_of_validation(tmp_path: Path) -> None:
    many(tmp_path / "a", list(range(40)))
    small = load(make_task(tmp_path / "a", split=HELD_OUT), 0)
    large = load(make_task(tmp_path / "a", split={**HELD_OUT, "num_validation": 20}), 0)
    assert ids(small)["test"] == ids(large)["test"]


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ({"test": None, "num_test": 40}, r"num_test=40.*\b40 left"),
        ({"test": None, "num_test": 30, "validation": None, "num_validation": 10}, r"num_validation=10.*\b10\b"),
        ({"num_test": 2}, r"num_test=2.*\b1\b"),
    ],
)
def test_too_few_rows_are_an_error_with_the_numbers(split: dict[str, object], words: str, tmp_path: Path) -> None:
    write_reviews(tmp_path, train=[(f"film {n}", "1") for n in range(40)])
    with pytest.raises(DataError, match=words):
        load(make_task(tmp_path, split=split), 0)


def test_a_held_out_split_needs_a_size(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task\.split\.num_test"):
        load(make_task(write_reviews(tmp_path), split={"test": None}), 0)


def test_a_split_with_nothing_left_is_an_error(tmp_path: Path) -> None:
    write_reviews(tmp_path, train=[("same", "1")], test=[("same", "1")])
    with pytest.raises(DataError, match="no row is left in the train split"):
        load(make_task(tmp_path), 0)


def test_more_training_rows_than_there_are_is_no_error(tmp_path: Path) -> None:
    assert len(load(make_task(write_reviews(tmp_path), split={"num_train": 99}), 0).train) == 1
