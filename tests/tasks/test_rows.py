"""What a task's YAML makes of a record: own choices, patterns, kept fields; and what it says of a broken one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.tasks.make_task import HELD_OUT, make_task, words_task, write_lines, write_reviews

from embedgrad_cli.errors import ConfigError, DataError
from embedgrad_cli.tasks import rows
from embedgrad_cli.tasks.load import Row, load

FREE = {"labels": None, "choices": None, "kind": "generation"}
OPTIONS = r"(?m)^(?:(\([A-Z]\))|- (.+)$)"
PATTERN: dict[str, Any] = {"labels": None, "choices": None, "choices_pattern": OPTIONS}


def rows_of(folder: Path, records: list[dict[str, Any]], **settings: Any) -> dict[str, Row]:
    """Every row of a task over one file, by its id."""
    write_lines(folder / "train.jsonl", records)
    splits = load(make_task(folder, **{"split": {**HELD_OUT, "num_validation": 1, "num_test": 1}, **settings}), 0)
    return {row.id: row for rows in (splits.train, splits.validation, splits.test) for row in rows}


def test_choices_found_in_the_query(tmp_path: Path) -> None:
    texts = ["Which?\n(A) a\n(B) b", "Which?\n(A) a\n(B) b\n(C) c", "Does he?\n- Yes\n- No", "Sort: b a"]
    records = [{"text": t, "label": a} for t, a in zip(texts, ["(B)", "(C)", "No", "a b"], strict=True)]
    rows = rows_of(tmp_path, records, choices_pattern=OPTIONS, **FREE)
    assert [rows[f"train:{n}"].choices for n in range(4)] == [("(A)", "(B)"), ("(A)", "(B)", "(C)"), ("Yes", "No"), ()]
    assert [rows[f"train:{n}"].answer for n in range(4)] == ["(B)", "(C)", "No", "a b"]


def test_choices_from_the_fields_of_the_row(tmp_path: Path) -> None:
    records = [
        {"text": "The man fell", "one": "He slipped", "two": "He slept", "label": 0, "options": ["x", "y"]},
        {"text": "The man fell", "one": "It rained", "two": "It was dry", "label": 0, "options": ["x", "y"]},
        {"text": "The dog barked", "one": "A thief", "two": "A bone", "label": 1, "options": ["v", "w"]},
        {"text": "The sun rose", "one": "Night", "two": "Day", "label": 1, "options": ["t", "u"]},
    ]
    own = {"choices": ["{one}", "{two}"], "labels": {"0": "{one}", "1": "{two}"}}
    rows = rows_of(tmp_path, records, query="{text} {options.1}", **own)
    assert rows["train:0"].choices == ("He slipped", "He slept")
    assert [rows[f"train:{n}"].answer for n in range(4)] == ["He slipped", "It rained", "A bone", "Day"]
    assert rows["train:2"].query == "The dog barked w"  # the same question with other choices is no repetition


def test_the_target_is_what_the_pattern_finds_last(tmp_path: Path) -> None:
    records = [{"question": f"q {n}", "answer": f"1 + {n} = #### 1 so\n#### {n}"} for n in range(9)]
    write_lines(tmp_path / "train.jsonl", records)
    splits = load(words_task(tmp_path, target_pattern=r"#### (\d+)"), 0)
    assert {row.target for row in splits.train} <= {str(n) for n in range(9)}
    assert all(row.target == row.answer for row in splits.train)


def test_fields_are_kept_as_text_where_a_row_has_them(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [{"text": f"t {n}", "label": n % 2, "level": f"Level {n}"} for n in range(4)]
    records[1] |= {"level": "Level ?", "about": {"kind": None}}
    rows = rows_of(tmp_path, records, keep=["level", "about.kind"])
    assert rows["train:0"].fields == {"level": "Level 0"}
    assert rows["train:1"].fields == {"level": "Level ?", "about.kind": ""}
    with pytest.raises(DataError, match=r"task.keep: no row of any file has a column 'levle'"):
        rows_of(tmp_path, records, keep=["levle"])


def test_a_field_that_is_kept_is_there_where_every_row_is_broken(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column 'label'") as refused:
        rows_of(tmp_path, [{"text": f"t {n}", "lable": n % 2, "level": n} for n in range(4)], keep=["level"])
    assert "task.keep" not in str(refused.value)


def test_a_field_that_is_kept_is_not_missed_where_no_row_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes("text,label,level\nun café,0,1\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8") as refused:
        load(make_task(tmp_path, split=HELD_OUT, keep=["level"]), 0)
    assert "task.keep" not in str(refused.value)


def test_hidden_arguments_are_refused() -> None:
    for settings in ({"target_pattern": "("}, {"choices_pattern": "["}, {"choices": ["{a[0]}", "b"]}):
        with pytest.raises(ConfigError, match=r"task\."):
            load(make_task("nowhere", **settings), 0)


@pytest.mark.parametrize(
    ("record", "settings", "words"),
    [
        ({"text": "Which?\n(A) a", "label": "(A)"}, PATTERN,
         "line 2: task.choices_pattern"),
        ({"text": "Which?\n(A) a\n(B) b", "label": "(C)"}, PATTERN,
         "line 2: label outside the choices: '(C)'"),
        ({"text": "How many?", "label": "none"}, {**FREE, "target_pattern": r"#### (\d+)"},
         "line 2: task.target_pattern"),
        ({"text": "How many?", "label": "<<1>>"}, {**FREE, "remove": "<<.*>>"},
         "line 2: the target is empty once task.remove"),
        ({"text": "Why?", "label": 0}, {"choices": ["{one}", "x"], "labels": None},
         "line 2: no column 'one'"),
    ],
)  # fmt: skip
def test_a_broken_row_is_named(record: dict[str, Any], settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    good = {"text": "Which?\n(A) a\n(B) b", "label": "(A)", "one": "(A)"}
    good |= {"label": "#### 1"} if "target_pattern" in settings else {}
    write_lines(tmp_path / "train.jsonl", [good, record])
    with pytest.raises(DataError) as error:
        load(make_task(tmp_path, split=HELD_OUT, **settings), 0)
    assert f"{tmp_path / 'train.jsonl'}, {words}" in str(error.value)


def test_defects_of_all_files_are_reported_together(tmp_path: Path) -> None:
    write_reviews(tmp_path)
    write_lines(tmp_path / "train.jsonl", [{"text": "a", "label": "7"}])
    (tmp_path / "validation.jsonl").write_text("")
    (tmp_path / "test.jsonl").write_text('{"text": "a", "label": 1}\n{"text"\n[1]\n{"txt": "b", "label": 1}\n')
    with pytest.raises(DataError) as error:
        load(make_task(tmp_path), 0)
    said = str(error.value)
    assert [words in said for words in ("label outside the choices: '7'", "validation.jsonl is empty")] == [True, True]
    for words in ("test.jsonl, line 2: not JSON", "line 3: a list where", "line 4: no column 'text'"):
        assert words in said


def test_missing_files_are_reported_together(tmp_path: Path) -> None:
    write_reviews(tmp_path)
    (tmp_path / "validation.jsonl").unlink()
    (tmp_path / "test.jsonl").unlink()
    with pytest.raises(DataError, match=r"(?s)no validation split.*no test split"):
        load(make_task(tmp_path), 0)


def test_broken_rows_can_be_left_out_and_are_counted(tmp_path: Path) -> None:
    write_reviews(tmp_path, train=[("good", "1"), ("odd", "7"), ("bad", "0"), ("odder", "8")])
    splits = load(make_task(tmp_path, broken="skip"), 0)
    assert [row.id for row in splits.train] == ["train:0", "train:2"]
    skipped = splits.report.broken_rows_skipped
    assert skipped is not None
    assert skipped.count == 2
    assert "train.jsonl, line 2: label outside the choices: '7'" in skipped.rows[0]
    (tmp_path / "train.jsonl").write_text("")
    with pytest.raises(DataError, match="is empty"):
        load(make_task(tmp_path, broken="skip"), 0)


def test_numbers_in_json_keep_their_spelling_as_choices(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text(json.dumps([{"text": f"t{n}", "label": n % 2} for n in range(6)]))
    splits = load(make_task(tmp_path, split=HELD_OUT, labels=None, choices=["0", "1"]), 0)
    assert {row.answer for row in splits.test} <= {"0", "1"}


@pytest.mark.parametrize("name", ["remove", "target_pattern", "choices_pattern"])
def test_a_pattern_without_end_ends(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a second, not in the 2^60 steps that it takes; row by row it would still be hours, so it is no broken row."""
    monkeypatch.setattr(rows, "SECONDS", 0.2)
    endless = "a" * 60 + "b"
    records = [{"text": "fine", "label": "yes"}, {"text": endless, "label": f"yes {endless}"}]
    with pytest.raises(DataError) as error:
        rows_of(tmp_path, records, **FREE, **{name: "(a+)+$|yes"}, broken="skip")
    for words in ("train.jsonl, line 2: ", f"task.{name}="):
        assert words in str(error.value)
