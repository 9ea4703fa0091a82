"""Every file format gives the same rows, exactly as written; every broken file is named with its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.tasks.make_task import HELD_OUT, fake_hub, make_task, words_task, write_lines, write_reviews

from embedgrad_cli.config.task_schema import HubConfig
from embedgrad_cli.errors import ConfigError, DataError
from embedgrad_cli.tasks.defects import Defects, Record
from embedgrad_cli.tasks.load import load
from embedgrad_cli.tasks.readers import read_file

RECORDS = [{"text": 'he said "fine', "label": "0"}, {"text": "NA", "label": "1"}, {"text": "2020-01-01", "label": "1"}]


def records_of(path: Path, field: str | None = None) -> list[Record]:
    return list(read_file(path, field).read(Defects()))


def write_parquet(path: Path, records: list[dict[str, str]]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_formats_give_the_same_text(ending: str, tmp_path: Path) -> None:
    folder = tmp_path / "with [brackets] and *"
    folder.mkdir()
    path = folder / f"train.{ending}"
    if ending == "jsonl":
        write_lines(path, RECORDS)
    elif ending == "json":
        path.write_text('[{"text": "he said \\"fine", "label": 0}, {"text": "NA", "label": 1},'
                        '{"text": "2020-01-01", "label": 1}]')  # fmt: skip
    elif ending == "csv":
        path.write_text('text,label\n"he said ""fine",0\nNA,1\n2020-01-01,1\n')
    elif ending == "tsv":
        path.write_text('text\tlabel\nhe said "fine\t0\nNA\t1\n2020-01-01\t1\n')
    else:
        write_parquet(path, RECORDS)
    assert records_of(path) == list(enumerate(RECORDS))


@pytest.mark.parametrize(
    ("name", "text", "records"),
    [
        ("rows.jsonl", '{"a": 1.50}\n\n{"a": "x\u2028y"}\n', [(0, {"a": "1.50"}), (2, {"a": "x\u2028y"})]),
        ("rows.jsonl", '\ufeff{"a": "x"}\r\n', [(0, {"a": "x"})]),
        ("rows.json", '{"a": 1}\n{"a": 2}\n', [(0, {"a": "1"}), (1, {"a": "2"})]),
        ("rows.csv", 'a,b\n"one\ntwo",null\n', [(0, {"a": "one\ntwo", "b": "null"})]),
        ("rows.csv", "a,b\r\n1,\r\n", [(0, {"a": "1", "b": ""})]),
        ("rows.tsv", "a\tb\r\n\"\t'\r\n\nNone\tnan", [(0, {"a": '"', "b": "'"}), (2, {"a": "None", "b": "nan"})]),
    ],
)
def test_text_is_kept_as_written(name: str, text: str, records: object, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert records_of(tmp_path / name) == records


def test_a_field_of_a_json_file_holds_the_rows(tmp_path: Path) -> None:
    (tmp_path / "task.json").write_text('{"canary": "x", "examples": [{"input": "q", "target": "t"}]}')
    assert records_of(tmp_path / "task.json", "examples") == [(0, {"input": "q", "target": "t"})]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train.jsonl", b'{"text": "a"}\n{"text": \n[1]\n', ["train.jsonl, line 2:", "line 3:"]),
        ("train.jsonl", b"", ["train.jsonl"]),
        ("train.json", b'{"examples": []}', ["train.json", "examples"]),
        ("train.json", b'[{"a": 1},\n{"a" 2}]', ["train.json, line 2:"]),
        ("train.json", b"[]", ["train.json"]),
        ("train.csv", b"text,label\ncaf\xe9,1\n", ["train.csv, line 2:", "0xe9"]),
        ("train.csv", b'text,label\na,1\n"b,1\n', ["train.csv"]),
        ("train.csv", b"text,label\na,b,1\n", ["train.csv, data row 1:", "text, label"]),
        ("train.csv", b"text,text\na,b\n", ["train.csv"]),
        ("train.tsv", b"text\tlabel\n", ["train.tsv"]),
        ("train.parquet", b"no parquet", ["train.parquet"]),
    ],
)
def test_broken_file_is_named_with_its_place(name: str, content: bytes, words: list[str], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        load(make_task(tmp_path, split=HELD_OUT), 0)
    for word in words:
        assert word in str(error.value)
    assert "\n\n" not in str(error.value)


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([{"text": "a", "label": "1"}, {"txt": "b", "label": "1"}], ["line 2:", "'text'", "txt, label"]),
        ([{"text": "a", "label": None}], ["line 1:", "'label'"]),
        ([{"text": ["a"], "label": "1"}], ["line 1:", "'text'"]),
        ([{"text": " \n", "label": "1"}], ["line 1: task.query"]),
        ([{"text": "a", "label": "7"}], ["line 1:", "'7'", "0 = negative, 1 = positive"]),
        ([{"text": "a", "label": "x"}, {"text": "b"}], ["line 1:", "'x'", "line 2:", "'label'"]),
        ([{"t": str(n)} for n in range(9)], ["line 1, 2, 3 and 6 more:", "'text'"]),
    ],
)  # fmt: skip
def test_broken_rows_are_reported_together(records: list[dict[str, object]], words: list[str], tmp_path: Path) -> None:
    write_reviews(tmp_path)
    write_lines(tmp_path / "train.jsonl", records)
    with pytest.raises(DataError) as error:
        load(make_task(tmp_path), 0)
    assert str(tmp_path / "train.jsonl") in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_only_the_first_ten_defects_are_shown(tmp_path: Path) -> None:
    write_reviews(tmp_path, train=[(f"film {n}", f"label {n}") for n in range(30)])
    with pytest.raises(DataError, match="and 20 more such lines") as error:
        load(make_task(tmp_path), 0)
    assert str(error.value).count("label outside the choices") == 10


def test_a_target_without_an_answer_is_a_defect(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.jsonl", [{"question": "How many?", "answer": "#### none"}])
    with pytest.raises(DataError, match="no answer that the grader last-number can find: '#### none'"):
        load(words_task(tmp_path), 0)


def test_fields_are_filled_in_and_braces_in_them_mean_nothing(tmp_path: Path) -> None:
    rows = [{"q": f"set {{{n}}} of {{x}}", "a": {"text": f"<<{n}>>{{}}#### {n} "}, "a.b": f"{n}"} for n in range(9)]
    write_lines(tmp_path / "train.jsonl", rows)
    task = words_task(tmp_path, query=" {{Q}} {q} ({a.b}) ", target="{a.text}", remove="<<[^>]*>>")
    splits = load(task, 0)
    found = {row.id: row for split in (splits.train, splits.validation, splits.test) for row in split}
    assert found["train:4"].query == "{Q} set {4} of {x} (4)"
    assert found["train:4"].target == "{}#### 4"
    assert found["train:4"].answer == "4"


@pytest.mark.parametrize(
    "settings",
    [
        {"query": "{text"}, {"query": "text"}, {"query": "{}"}, {"query": "{text[0]}"}, {"target": "{label!r}"},
        {"remove": "("}, {"choices": None}, {"grader": "guess"},
    ],
)  # fmt: skip
def test_settings_that_make_no_row_are_refused_before_reading(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"task\."):
        load(make_task("no-such-folder", **settings), 0)


def test_missing_folder_says_which_files_are_needed() -> None:
    with pytest.raises(DataError, match=r"no-such-folder is not a folder.*train.jsonl .*test.jsonl") as error:
        load(make_task("no-such-folder"), 0)
    assert "\n" not in str(error.value)


def test_missing_split_lists_what_is_there(tmp_path: Path) -> None:
    write_reviews(tmp_path)
    with pytest.raises(DataError, match=r"looked for dev.jsonl or valid.jsonl .*found test.jsonl, train.jsonl"):
        load(make_task(tmp_path, split={"validation": ["dev", "valid"]}), 0)


def test_first_candidate_that_exists_is_read(tmp_path: Path) -> None:
    write_reviews(tmp_path)
    splits = load(make_task(tmp_path, split={"test": ["dev", "test", "train"]}), 0)
    assert [row.id for row in splits.test] == ["test:0"]


def test_two_files_for_one_split_are_not_guessed_between(tmp_path: Path) -> None:
    write_reviews(tmp_path)
    (tmp_path / "train.csv").write_text("text,label\na,1\n")
    with pytest.raises(DataError, match=r"train.jsonl and train.csv"):
        load(make_task(tmp_path), 0)


def test_rows_of_files_with_one_name_in_several_folders_have_ids_of_their_own(tmp_path: Path) -> None:
    for name in ("train", "validation", "test"):
        (tmp_path / name).mkdir()
        write_lines(tmp_path / name / "data.jsonl", [{"text": f"a film of {name}", "label": 1}])
    names = {name: [f"{name}/data"] for name in ("train", "validation", "test")}
    splits = load(make_task(tmp_path, names), 0)
    rows = [*splits.train, *splits.validation, *splits.test]
    assert [row.id for row in rows] == ["train/data:0", "validation/data:0", "test/data:0"]


def test_one_file_cannot_be_two_splits(tmp_path: Path) -> None:
    write_reviews(tmp_path)
    with pytest.raises(DataError, match=r"both the validation and the test split.*task.split.num_test=N"):
        load(make_task(tmp_path, split={"test": ["validation"]}), 0)


class FakeSplit(list):
    def to_list(self) -> list[dict[str, object]]:
        return list(self)


def test_hub_rows_keep_number_labels_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(monkeypatch, {name: FakeSplit([{"text": f"a {name}", "label": 1}]) for name in ("train", "dev", "test")})
    task = make_task(hub=HubConfig("some/reviews", None, None), split={"validation": ["validation", "dev"]})
    assert load(task, 0).validation[0].answer == "positive"


def test_hub_without_the_split_lists_those_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(monkeypatch, {"train": FakeSplit([{"text": "a", "label": 1}])})
    with pytest.raises(DataError, match=r"no validation split.*some/reviews.*found train"):
        load(make_task(hub=HubConfig("some/reviews", None, None)), 0)


def test_hub_out_of_reach_points_at_local_files(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(monkeypatch, ConnectionError("no route\nto host"))
    task = make_task(hub=HubConfig("some/reviews", None, None), split={"test": ["math500", "test"]})
    with pytest.raises(DataError) as error:
        load(task, 0)
    for word in ("some/reviews", "no route", "task.data_dir=DIR", "train.jsonl", "math500.jsonl or test.jsonl"):
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_no_data_at_all_is_said() -> None:
    with pytest.raises(DataError, match=r"neither task.data_dir nor task.hub.path is set"):
        load(make_task(), 0)
