"""Rows of train in the seed's text: which ones, where, and that nothing else of the splits moves."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import optimize_config
from tests.tasks.make_task import make_task, write_lines, write_reviews

from embedgrad_cli.config.checks import check_demonstrations
from embedgrad_cli.config.schema import OptimizeConfig, PromptConfig
from embedgrad_cli.errors import DataError
from embedgrad_cli.tasks.demonstrations import load_for
from embedgrad_cli.tasks.load import Splits, load
from embedgrad_cli.tasks.row_filter import RowFilter

TEXT = "Positive or negative?"
PLACED = "Positive or negative?\n\n{demonstrations}\n\nNow the next one."


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Of thirty films of train six are good ones."""
    train = [(f"film {number}", "1" if number % 5 == 0 else "0") for number in range(30)]
    held_out = {name: [(f"{name} {number}", "1") for number in range(5)] for name in ("validation", "test")}
    return write_reviews(tmp_path, train=train, **held_out)


def config_of(folder: Path, count: int | None, text: str | list[str] = TEXT, **changes: Any) -> OptimizeConfig:
    config = optimize_config(folder / "run", folder / "model", folder, **changes)
    config.prompt = PromptConfig(text, count)
    return config


def all_ids(splits: Splits) -> list[str]:
    return [row.id for rows in (splits.train, splits.validation, splits.test) for row in rows]


def test_they_leave_train_and_nothing_else_moves(films: Path) -> None:
    config = config_of(films, 4)
    without = load(config.task, config.seed)
    resolved, splits = load_for(config)

    drawn = [row.id for row in splits.demonstrations]
    assert len(set(drawn)) == 4
    assert drawn == splits.report.demonstrations
    assert set(all_ids(splits)) == set(all_ids(without)) - set(drawn)
    assert [row for row in without.train if row.id not in drawn] == splits.train
    assert (splits.validation, splits.test, splits.hash) == (without.validation, without.test, without.hash)
    assert splits.report.counts == {"train": 26, "validation": 5, "test": 5}
    assert splits.content_digest != without.content_digest
    shown = "\n\n".join(f"{row.query}\n{row.target}" for row in splits.demonstrations)
    assert resolved.prompt == PromptConfig(f"{TEXT}\n\n{shown}", None)
    assert config.prompt == PromptConfig(TEXT, 4), "what the user gave stays as it is"


def test_without_the_setting_it_is_load(films: Path) -> None:
    config = config_of(films, None)
    resolved, splits = load_for(config)
    assert resolved == config
    assert splits == load(config.task, config.seed)
    assert splits.report.demonstrations is None


def test_they_depend_on_the_seed_alone(films: Path) -> None:
    first = load_for(config_of(films, 4))[1].demonstrations
    assert load_for(config_of(films, 4))[1].demonstrations == first
    assert load_for(config_of(films, 4, seed=1))[1].demonstrations != first
    more = load_for(config_of(films, 6))[1].demonstrations
    assert more[:4] == first
    lines = (films / "train.jsonl").read_text().splitlines(keepends=True)
    (films / "train.jsonl").write_text("".join(reversed(lines)))
    moved = load_for(config_of(films, 4))[1].demonstrations
    assert [row.query for row in moved] == [row.query for row in first], "not on the order of the file"


@pytest.mark.parametrize("count", [2, 4, 7])
def test_labels_take_turns(films: Path, count: int) -> None:
    answers = [row.answer for row in load_for(config_of(films, count))[1].demonstrations]
    assert all(one != next_one for one, next_one in pairwise(answers))
    assert abs(answers.count("positive") - answers.count("negative")) <= 1


def test_where_a_label_runs_out_the_others_go_on(films: Path) -> None:
    answers = [row.answer for row in load_for(config_of(films, 20))[1].demonstrations]
    assert (answers.count("positive"), answers.count("negative")) == (6, 14)


def test_answers_that_are_no_labels_take_no_turns(films: Path) -> None:
    """Then they are the first rows in the seeded order, which on this data are of one label more often."""
    changes = {
        "task__kind": "generation",
        "task__choices": None,
        "task__labels": None,
        "task__target": "{label} points",
    }
    answers = [row.answer for row in load_for(config_of(films, 10, **changes))[1].demonstrations]
    assert answers.count("0 points") > 5


def test_they_are_among_the_rows_that_train_may_have(films: Path) -> None:
    """So runs with and without them have seen the same number of labels."""
    config = config_of(films, 4, task__split__num_train=10)
    splits = load_for(config)[1]
    allowed = {row.id for row in load(config.task, 0).train}
    assert {row.id for row in [*splits.train, *splits.demonstrations]} == allowed
    assert len(splits.train) == 6


def test_their_place(films: Path) -> None:
    rows = load_for(config_of(films, 2))[1].demonstrations
    shown = "\n\n".join(f"{row.query}\n{row.target}" for row in rows)
    assert load_for(config_of(films, 2, PLACED))[0].prompt.text == PLACED.replace("{demonstrations}", shown)
    several = load_for(config_of(films, 2, [TEXT, "So: {demonstrations}"]))[0].prompt.text
    assert several == [TEXT, f"So: {shown}"]


def test_none_of_them_is_the_text_alone(films: Path) -> None:
    for text in (TEXT, f"{TEXT}\n\n{{demonstrations}}"):
        resolved, splits = load_for(config_of(films, 0, text))
        assert resolved.prompt.text == TEXT
        assert len(splits.train) == 30


def test_an_artifact_has_seen_them(films: Path) -> None:
    splits = load_for(config_of(films, 4))[1]
    known = RowFilter.of(splits)
    assert all(known.contains([*splits.demonstrations, *splits.train, *splits.validation]))
    assert not any(known.contains(splits.test))


def test_too_few_rows(films: Path) -> None:
    assert len(load_for(config_of(films, 29))[1].train) == 1
    with pytest.raises(DataError, match=r"prompt\.demonstrations=30 rows .* train has only 30"):
        load_for(config_of(films, 30))


@pytest.mark.parametrize("place", ["{query}", "{prompt}", "{prompt.1}", "{demonstrations}"])
def test_a_row_with_a_place_in_it(place: str, tmp_path: Path) -> None:
    write_reviews(tmp_path)
    write_lines(tmp_path / "train.jsonl", [{"text": f"film {n} of {place}", "label": "1"} for n in range(5)])
    with pytest.raises(DataError, match=r"the row train:\d.*prompt\.demonstrations.*\{") as caught:
        load_for(config_of(tmp_path, 2))
    assert place in str(caught.value)
    assert len(load(make_task(tmp_path), 0).train) == 5, "which as a query is a text like any other"


@pytest.mark.parametrize(
    ("text", "count", "problem"),
    [
        ("Look: {demonstrations}", None, "prompt.demonstrations: prompt.text holds {demonstrations}"),
        (["a", "b"], 2, "prompt.text: it holds several texts"),
        (None, 2, "prompt.demonstrations: prompt.text has no value"),
        ("Look.", 2, None),
        (["a", "b {demonstrations}"], 2, None),
        (None, None, None),
    ],
)
def test_settings_that_do_not_go_together(text: Any, count: int | None, problem: str | None) -> None:
    problems = check_demonstrations(PromptConfig(text, count))
    assert [one.startswith(problem or "") for one in problems] == [True] * (problem is not None)
