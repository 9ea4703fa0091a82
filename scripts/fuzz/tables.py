"""Data files: encodings, line ends, quotes, zero bytes, ragged rows, repeated columns, nesting, 10 MB in one cell."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from embedgrad_cli.config.build import build
from embedgrad_cli.config.compose import Composer
from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.config.task_schema import TaskConfig
from embedgrad_cli.tasks.load import load
from fuzz.case import Case
from fuzz.mutations import as_bytes, as_json, cut_bytes, edited, raw_values, texts, values

ENDINGS = ("jsonl", "json", "csv", "tsv", "parquet")
ENCODINGS = ("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "utf-7")
LARGE = 10_000_000  # characters
ROWS = [
    {"text": f"a film {number}, {'gripping' if number % 2 else 'dull'}", "label": number % 2} for number in range(8)
]
NUMBERS = [{"text": f"What is {n} + {n}?", "label": f"We add.\n#### {2 * n}"} for n in range(8)]
CHOICE = ["task=reviews", "task.query='{text}'", "task.target='{label}'", "task.labels={0: negative, 1: positive}"]
NUMBER = ["task=word-problems", "task.query='{text}'", "task.target='{label}'"]
SPLIT = ["task.split.validation=null", "task.split.test=null", "task.split.num_validation=2", "task.split.num_test=2"]


def cases() -> SearchStrategy[Case]:
    """Files of one task or the other, some of them with broken rows left out."""
    tasks: list[tuple[list[dict[str, Any]], TaskConfig]] = [
        (ROWS, _task([*CHOICE, *SPLIT])),
        (NUMBERS, _task([*NUMBER, *SPLIT])),
    ]
    return st.sampled_from(tasks).flatmap(lambda task: _cases(*task))


def _task(overrides: list[str]) -> TaskConfig:
    config, problems = build("optimize", Composer().settings("optimize", [*overrides, "output_dir=out"]))
    assert isinstance(config, OptimizeConfig), problems
    return config.task


@st.composite
def _cases(draw: DrawFn, rows: list[dict[str, Any]], task: TaskConfig) -> Case:
    ending, broken = draw(st.sampled_from(ENDINGS)), draw(st.sampled_from(["error", "skip"]))
    content = draw(_file(rows, ending))

    def call(folder: Path) -> None:
        settings = {**vars(task), "data_dir": str(folder), "broken": broken}
        load(TaskConfig(**settings), 0)

    return Case({f"train.{ending}": content}, call=call, names=(f"train.{ending}", "task."))


@st.composite
def _file(draw: DrawFn, rows: list[dict[str, Any]], ending: str) -> bytes:
    edits = draw(edited(rows, values if ending == "parquet" else raw_values, most=4))
    records = [row for row in edits if isinstance(row, dict)] if isinstance(edits, list) else []
    if draw(st.integers(0, 60)) == 0:
        records = [*records, {"text": "x" * LARGE, "label": 1}]
    if ending == "parquet":
        content = _parquet(records)
    elif ending in ("csv", "tsv"):
        content = draw(_table(records, "," if ending == "csv" else "\t"))
    else:
        plain = draw(st.booleans())
        whole = as_json(edits, plain) if ending == "json" else "\n".join(as_json(row, plain) for row in edits)
        encoding = draw(st.sampled_from(ENCODINGS))
        content = as_bytes(whole) if encoding == "utf-8" else whole.encode(encoding, "replace")
    return draw(cut_bytes(content)) if draw(st.integers(0, 3)) == 0 and len(content) < LARGE else content


@st.composite
def _table(draw: DrawFn, records: list[dict[str, Any]], separator: str) -> bytes:
    header = draw(
        st.sampled_from([["text", "label"], ["text", "label", "more"], ["text", "text"], ["label"], [], [""]])
    )
    lines = [header, *[[record.get(name, "") for name in header] for record in records]]
    if draw(st.booleans()):  # a row with a field more or less
        lines.insert(draw(st.integers(0, len(lines))), draw(st.lists(texts, max_size=5)))
    stream = io.StringIO(newline="")
    csv.writer(
        stream,
        delimiter=separator,
        quoting=draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])),
        lineterminator=draw(st.sampled_from(["\n", "\r\n", "\r"])),
    ).writerows(lines)
    encoding = draw(st.sampled_from(ENCODINGS))
    text = stream.getvalue()
    return as_bytes(text) if encoding == "utf-8" else text.encode(encoding, "replace")


def _parquet(records: list[dict[str, Any]]) -> bytes:
    """Columns of whatever type Arrow finds for them; as JSON where it finds none that Parquet has."""
    import pyarrow

    columns = {}
    for name in dict.fromkeys(key for record in records for key in record):
        column, plain = [record.get(name) for record in records], name.encode(errors="replace").decode()
        try:
            columns[plain] = pyarrow.array(column)
            _written({plain: columns[plain]})
        except (pyarrow.ArrowException, OverflowError, UnicodeError, ValueError):
            columns[plain] = pyarrow.array([json.dumps(one) for one in column])
    return _written(columns)


def _written(columns: dict[str, Any]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), stream)
    return stream.getvalue()
