"""Whatever one row's content raises is a defect of that row: named, and left out by `task.broken=skip`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.tasks.make_task import HELD_OUT, fake_hub, make_task, words_task

from embedgrad_cli.config.task_schema import HubConfig
from embedgrad_cli.errors import DataError
from embedgrad_cli.storage.files import write_json_lines
from embedgrad_cli.tasks import graders
from embedgrad_cli.tasks.load import Splits, load

GOOD = [json.dumps({"text": f"a film {number}, gripping", "label": number % 2, "level": "1"}) for number in range(8)]
DEEP = "[" * 1500 + "]" * 1500
BROKEN = {
    "half a character in the query": r'{"text": "a film \ud83d", "label": 1}',
    "half a character in the target": r'{"text": "a film", "label": "\ude00"}',
    "half a character in a kept field": r'{"text": "a film", "label": 1, "level": "\ud83d"}',
    "half a character in a column's name": r'{"\ud83d": "a film", "label": 1}',
    "a deep value that nobody reads": f'{{"text": "a film", "label": 1, "more": {DEEP}}}',
    "a deep value in the query": f'{{"text": {DEEP}, "label": 1}}',
}


def load_all(folder: Path, **settings: Any) -> Splits:
    return load(make_task(folder, split=HELD_OUT, **settings), 0)


def assert_left_out(folder: Path, place: str, **settings: Any) -> None:
    """The defect is named with its place, and skipping leaves out this row alone, once."""
    with pytest.raises(DataError) as error:
        load_all(folder, **settings)
    assert place in str(error.value)
    str(error.value).encode()
    splits = load_all(folder, **settings, broken="skip")
    assert sum(map(len, (splits.train, splits.validation, splits.test))) == len(GOOD)
    report = splits.report.broken_rows_skipped
    assert report is not None
    assert report.count == 1


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("ending", ["jsonl", "json", "json lines"])
def test_a_row_of_json(broken: str, ending: str, tmp_path: Path) -> None:
    lines = [*GOOD[:3], broken, *GOOD[3:]]
    text = f"[{', '.join(lines)}]" if ending == "json" else "\n".join(lines)
    path = tmp_path / f"train.{ending.partition(' ')[0]}"
    path.write_text(text)
    assert_left_out(tmp_path, " 4: ", keep=["level"])


def test_a_deep_row_under_a_field(tmp_path: Path) -> None:
    rows = ", ".join([BROKEN["a deep value that nobody reads"], *GOOD])
    (tmp_path / "train.json").write_text(f'{{"about: [": {{"a": [1, "}}"]}}, "examples": [{rows}]}}')
    assert_left_out(tmp_path, "train.json, row 1: ", field="examples")


@pytest.mark.parametrize(
    ("ending", "place"), [("jsonl", "line 9: "), ("json", "row 9: "), ("csv", "line 11: "), ("tsv", "line 10: ")]
)
def test_a_byte_that_is_not_utf8(ending: str, place: str, tmp_path: Path) -> None:
    lines = [*(row.encode() for row in GOOD), b'{"text": "caf\xe9", "label": 1}']
    if ending == "json":
        lines = [b"[" + b", ".join(lines) + b"]"]
    elif ending != "jsonl":
        tab = b"," if ending == "csv" else b"\t"
        rows = [tab.join([b"a film %d" % number, b"%d" % (number % 2)]) for number in range(8)]
        rows[2] = tab.join([b'"a\nfilm"' if ending == "csv" else b"a film", b"1"])
        lines = [tab.join([b"text", b"label"]), *rows, tab.join([b"caf\xe9", b"1"])]
    (tmp_path / f"train.{ending}").write_bytes(b"\n".join(lines))
    assert_left_out(tmp_path, f"train.{ending}, {place}")


@pytest.mark.parametrize("ending", ["json", "jsonl", "csv", "tsv"])
def test_a_file_in_another_encoding_is_named(ending: str, tmp_path: Path) -> None:
    text = json.dumps(list(map(json.loads, GOOD))) if ending == "json" else "text,label\na film,1\n"
    (tmp_path / f"train.{ending}").write_bytes(text.encode("utf-16"))
    with pytest.raises(DataError, match=rf"train.{ending}, line 1: .*0xff"):
        load_all(tmp_path)


@pytest.mark.parametrize("at", [0, 3, 8])
def test_a_row_of_parquet_that_python_cannot_hold(at: int, tmp_path: Path) -> None:
    """Arrow keeps bytes that are no UTF-8, and years that Python does not have."""
    import pyarrow
    import pyarrow.parquet

    texts = [json.loads(row)["text"].encode() for row in GOOD]
    texts.insert(at, b"caf\xe9")
    offsets = [0]
    for text in texts:
        offsets.append(offsets[-1] + len(text))
    buffers = [None, pyarrow.array(offsets, pyarrow.int32()).buffers()[1], pyarrow.py_buffer(b"".join(texts))]
    column = pyarrow.Array.from_buffers(pyarrow.string(), len(texts), buffers)
    labels = pyarrow.array([number % 2 for number in range(len(texts))])
    pyarrow.parquet.write_table(pyarrow.table({"text": column, "label": labels}), tmp_path / "train.parquet")
    assert_left_out(tmp_path, f"train.parquet, row {at + 1}: ")


class Undecodable(list):  # type: ignore[type-arg]
    """A split of the hub with one row that its library cannot decode, as a damaged image is."""

    def __iter__(self) -> Iterator[Any]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: Any) -> Any:
        if number == 4:
            raise OSError("cannot identify image file")
        return super().__getitem__(number)


def test_a_row_of_the_hub_that_cannot_be_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Undecodable(map(json.loads, [*GOOD[:4], "{}", *GOOD[4:]]))
    fake_hub(monkeypatch, {"train": rows})
    task = make_task(hub=HubConfig("some/reviews", None, None), split=HELD_OUT)
    with pytest.raises(DataError, match="some/reviews, split train, row 5: "):
        load(task, 0)
    task.broken = "skip"
    assert len(load(task, 0).train) == len(GOOD) - 5  # 2 for validation, 3 for test


@pytest.mark.parametrize("error", [ZeroDivisionError(), RecursionError(), OverflowError("too large")])
def test_what_a_grader_raises_on_a_target(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fragile(type(graders.get("last-number"))):  # type: ignore[misc]
        def gold(self, target: str) -> str | None:
            if "7" in target:
                raise error
            return super().gold(target)

    monkeypatch.setattr(graders, "get", lambda *_: Fragile())
    write_json_lines(tmp_path / "train.jsonl", [{"question": f"q {n}", "answer": f"{n}"} for n in range(9)])
    with pytest.raises(DataError, match=r"train.jsonl, line 8: "):
        load(words_task(tmp_path), 0)
    assert len(load(words_task(tmp_path, broken="skip"), 0).train) == 3


def test_running_out_of_memory_is_not_a_broken_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def get(*_: object) -> object:
        raise MemoryError

    (tmp_path / "train.jsonl").write_text("\n".join(GOOD))
    monkeypatch.setattr("embedgrad_cli.tasks.rows.RowMaker._row", get)
    with pytest.raises(MemoryError):
        load_all(tmp_path, broken="skip")
