"""Fractions, folds and worked examples: every row has one place, and the same one twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.tasks.make_task import HELD_OUT, make_task, write_lines, write_reviews

from embedgrad_cli.config.task_schema import WorkedExample
from embedgrad_cli.errors import ConfigError, DataError
from embedgrad_cli.tasks.load import Splits, load


def film_folder(folder: Path, count: int = 43) -> Path:
    rows = [{"text": f"film {number}", "label": number % 2} for number in range(count)]
    rows += [{"text": "film  1", "label": 1}, {"text": "film 2", "label": 1}]  # a repetition, a contradiction
    return write_lines(folder / "train.jsonl", rows).parent


def all_ids(splits: Splits) -> list[str]:
    return sorted(row.id for rows in (splits.train, splits.validation, splits.test) for row in rows)


def fold_split(folds: int) -> dict[str, object]:
    return {"validation": None, "test": None, "num_validation": 0.2, "folds": folds}


@pytest.mark.parametrize("folds", [2, 5, 41])
def test_folds_partition_the_clean_rows(folds: int, tmp_path: Path) -> None:
    film_folder(tmp_path)
    loaded = [load(make_task(tmp_path, split=fold_split(folds), fold=number), 0) for number in range(folds)]
    tests = [[row.id for row in splits.test] for splits in loaded]
    clean = all_ids(loaded[0])
    assert len(clean) == 42  # of 43 films one contradicts itself
    assert sorted(row for fold in tests for row in fold) == clean
    assert max(map(len, tests)) - min(map(len, tests)) <= 1
    assert all(all_ids(splits) == clean for splits in loaded)
    assert len({splits.hash for splits in loaded}) == folds
    assert {len(splits.validation) for splits in loaded} == {8}


def test_a_fold_depends_on_the_seed_alone(tmp_path: Path) -> None:
    film_folder(tmp_path)
    task = make_task(tmp_path, split=fold_split(5), fold=3)
    assert load(task, 0).hash == load(task, 0).hash != load(task, 1).hash


@pytest.mark.parametrize("fold", [None, 5])
def test_a_fold_that_does_not_exist(fold: int | None, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task.fold: .* is not one of the 5 folds"):
        load(make_task(film_folder(tmp_path), split=fold_split(5), fold=fold), 0)
    with pytest.raises(DataError, match=r"task.split.folds=50 folds are to be cut from 42 rows"):
        load(make_task(tmp_path, split=fold_split(50), fold=0), 0)


def test_fractions_of_train_and_of_a_named_split(tmp_path: Path) -> None:
    film_folder(tmp_path)
    held_out = {"validation": None, "test": None, "num_validation": 0.25, "num_test": 0.5}
    counts = load(make_task(tmp_path, split=held_out), 0).report.counts
    assert counts == {"train": 11, "validation": 10, "test": 21}
    write_reviews(tmp_path, train=[(f"film {n}", "1") for n in range(20)], test=[(f"test {n}", "0") for n in range(10)])
    named = {"validation": None, "num_validation": 0.001, "num_test": 0.3}
    assert load(make_task(tmp_path, split=named), 0).report.counts == {"train": 19, "validation": 1, "test": 3}


def test_worked_examples_leave_train_and_nothing_else_moves(tmp_path: Path) -> None:
    film_folder(tmp_path)
    without = load(make_task(tmp_path, split=HELD_OUT), 0)
    task = make_task(tmp_path, split=HELD_OUT, fewshot=3)
    splits = load(task, 0)
    drawn = splits.report.fewshot
    assert len(drawn) == len(splits.fewshot) == 3
    assert set(all_ids(splits)) == set(all_ids(without)) - set(drawn)
    assert (splits.test, splits.validation) == (without.test, without.validation)
    assert load(task, 0).fewshot == splits.fewshot != load(task, 1).fewshot
    assert all(example.target in ("positive", "negative") for example in splits.fewshot)


def test_an_example_of_the_users_own_is_no_row_of_a_split(tmp_path: Path) -> None:
    film_folder(tmp_path)
    before = load(make_task(tmp_path, split=HELD_OUT), 0)
    shown = WorkedExample(before.test[0].query + " ", "positive")
    splits = load(make_task(tmp_path, split=HELD_OUT, fewshot=[shown]), 0)
    assert splits.fewshot == [shown]
    assert splits.test == before.test[1:]


def test_too_many_worked_examples(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"task.fewshot=37 worked examples .* only 37 rows"):
        load(make_task(film_folder(tmp_path), split=HELD_OUT, fewshot=37), 0)
