"""Reads files as they are: nothing is guessed or converted.

jsonl, json, csv and tsv are read with Python's own parsers. The readers of `datasets` infer a type for each column:
they turn the text "2020-01-01" into a date and 1 into 1.0, fill absent keys with null, and cannot say which row
is broken. Parquet files, whose columns have types already, are read by Arrow. Lines and rows come one at a time, so
that a large file takes no more memory than its rows do.
"""

from __future__ import annotations

import csv
import json
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedgrad_cli.config.spelling import half_character
from embedgrad_cli.errors import DataError, cause
from embedgrad_cli.tasks.defects import Defects, Record, Source

log = logging.getLogger(__name__)

PARQUET_BATCH = 1_000
# Numbers in a JSON file are kept as they are written (1.50 stays "1.50"); NaN is a missing value.
JSON_AS_WRITTEN: dict[str, Any] = {"parse_int": str, "parse_float": str, "parse_constant": lambda name: None}
_JSON_MARK = re.compile(
    r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},]', re.DOTALL
)  # a whole string, or what stands between values


def read_file(path: Path, field: str | None = None) -> Source:
    """The source that reads one file by its ending. `field` is the key under which a json file holds its rows.

    Reading it raises a DataError if the file is empty, not UTF-8, or not what its ending says.
    """
    ending = path.suffix.lstrip(".")
    if ending == "parquet":
        return _source(path, "row", lambda source, defects: _read_parquet(source, path, defects))
    if ending == "json":
        return _source(path, "row", lambda source, defects: _read_json(source, path, field, defects))
    if ending == "jsonl":
        return _source(path, "line", lambda source, defects: _read_json_lines(source, _byte_lines(path), defects))
    return _source(path, "data row", lambda source, defects: _read_table(source, path, ending, defects))


def _source(path: Path, unit: str, reader: Callable[[Source, Defects], Iterator[Record]]) -> Source:
    def read(defects: Defects) -> Iterator[Record]:
        number, before = None, defects.num_rows
        for number, record in reader(source, defects):
            yield number, record
        if number is None and defects.num_rows == before:
            blank = not path.read_bytes().strip()
            raise DataError(f"{path} {'is empty' if blank else 'holds no row'}. A data file needs at least one row.")

    source = Source(str(path), path.stem, read, unit)
    return source


def _lines(path: Path, newline: str = "\n") -> Iterator[str]:
    """The file's lines, one at a time. By default only a line feed ends one: U+2028 may stand inside a text.

    A byte that is not UTF-8 becomes half of a character (`surrogateescape`), so that it is its row's defect.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline=newline) as file:
            yield from file
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None


def _byte_lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None


def _not_utf8(path: Path) -> DataError:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = f"0x{line[error.start]:02x}"
                return DataError(
                    f"{path}, line {number}: not UTF-8 (byte {byte}). Save the file in the encoding UTF-8."
                )
    return DataError(f"{path}: not UTF-8. Save the file in the encoding UTF-8.")


def _read_json_lines(source: Source, lines: Iterable[bytes], defects: Defects) -> Iterator[Record]:
    for number, line in enumerate(lines):
        try:
            text = line.decode("utf-8" if number else "utf-8-sig")
            if not text.strip():
                continue
            record = json.loads(text, **JSON_AS_WRITTEN)
        except Exception as error:  # whatever one line raises is that line's
            defects.add_raised(source, number, error)
            continue
        yield from _records(source, defects, number, record)


def _as_bytes(text: str) -> bytes:
    """What the file had."""
    return text.encode(errors="surrogateescape")


def _read_json(source: Source, path: Path, field: str | None, defects: Defects) -> Iterator[Record]:
    text = "".join(_lines(path))
    try:
        content = json.loads(text, **JSON_AS_WRITTEN) if text.strip() else []
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and field is None:  # many a .json file holds JSON lines
            yield from _read_json_lines(replace(source, unit="line"), _as_bytes(text).split(b"\n"), defects)
            return
        if half_character(text):
            raise _not_utf8(path) from None
        where = f"{error.msg} at column {error.colno}"
        raise DataError(f"{path}, line {error.lineno}: not JSON: {where}. Correct the file.") from None
    except RecursionError:
        yield from _read_deep_json(source, text, field, defects)
        return
    rows = content.get(field) if isinstance(content, dict) and field else content
    if not isinstance(rows, list):
        lists = [key for key, value in content.items() if isinstance(value, list)] if isinstance(content, dict) else []
        hint = f"Lists in it: {', '.join(lists) or 'none'}."
        where = f"no list under task.field={field}" if field else "no list of rows (task.field is not set)"
        raise DataError(f"{path} holds {where}. {hint} A json file is a list of objects, or task.field names the list.")
    for number, record in enumerate(rows):
        yield from _records(source, defects, number, record)


def _read_deep_json(source: Source, text: str, field: str | None, defects: Defects) -> Iterator[Record]:
    """The rows one by one, because one of them is nested more deeply than the parser can follow."""
    if field is None and text.lstrip().startswith("{"):
        yield from _read_json_lines(replace(source, unit="line"), _as_bytes(text).split(b"\n"), defects)
        return
    if field is not None:
        spellings = (json.dumps(field), json.dumps(field, ensure_ascii=False))
        keys = ((_JSON_MARK.search(member), member) for member in _json_parts(text))
        text = next((member[key.end() :] for key, member in keys if key and key[0] in spellings), "")
    for number, part in enumerate(_json_parts(text)):
        try:
            record = json.loads(part, **JSON_AS_WRITTEN)
        except Exception as error:
            defects.add_raised(source, number, error)
            continue
        yield from _records(source, defects, number, record)


def _json_parts(text: str) -> Iterator[str]:
    """What stands between the commas of the outermost list or object, however deeply it is nested."""
    depth = begin = 0
    for mark in _JSON_MARK.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(mark[0], 0)
        if mark[0] in "[{" and depth == 1:
            begin = mark.end()
        elif depth == 0 or (depth == 1 and mark[0] == ","):
            yield text[begin : mark.start()]
            begin = mark.end()


def _read_table(source: Source, path: Path, ending: str, defects: Defects) -> Iterator[Record]:
    """csv with the usual quoting; tsv without any, because a quotation mark in it is part of the text."""
    csv.field_size_limit(sys.maxsize)
    table = csv.reader(_lines(path, newline=""), strict=True) if ending == "csv" else _tab_separated(_lines(path))
    try:
        header: list[str] = next(table, [])
        if half_character("".join(header)):
            raise _not_utf8(path)
        if len(set(header)) < len(header):
            raise DataError(f"{path}, line 1: a column name occurs twice in the header: {', '.join(header)}.")
        for number, fields in enumerate(table):
            if half := half_character("".join(fields)):
                at = table.line_num if ending == "csv" else number + 2  # type: ignore[union-attr]
                defects.add(replace(source, unit="line"), at - 1, f"{half}. Save the file in the encoding UTF-8")
            elif len(fields) == len(header):
                yield number, dict(zip(header, fields, strict=True))
            elif fields:
                columns = f"{len(fields)} fields, but the header has {len(header)} ({', '.join(header)})"
                defects.add(source, number, columns)
    except csv.Error as error:
        raise DataError(f"{path}, line {table.line_num}: not csv: {error}. Correct the quoting there.") from None  # type: ignore[union-attr]


def _tab_separated(lines: Iterable[str]) -> Any:
    bare = (line.removesuffix("\n").removesuffix("\r") for line in lines)
    return (line.split("\t") if line else [] for line in bare)


def _records(source: Source, defects: Defects, number: int, record: Any) -> Iterator[Record]:
    if isinstance(record, dict):
        yield number, record
    else:
        defects.add(source, number, f"a {type(record).__name__} where an object with named fields was expected")


def _read_parquet(source: Source, path: Path, defects: Defects) -> Iterator[Record]:
    import pyarrow.parquet  # what `datasets` reads it with

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=PARQUET_BATCH):
            yield from read_by_number(source, _ParquetRows(batch), defects, number)
            number += batch.num_rows
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as parquet: {cause(error)}. Write the file again.") from None


class _ParquetRows:
    """The rows of a batch: all at once, or one alone where another cannot be made into Python's objects."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return int(self.batch.num_rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.batch.to_pylist())

    def __getitem__(self, number: int) -> dict[str, Any]:
        record: dict[str, Any] = self.batch.slice(number, 1).to_pylist()[0]
        return record


def read_by_number(source: Source, rows: Any, defects: Defects, start: int = 0) -> Iterator[Record]:
    """Records of what has a length, an order and numbered rows; a row that raises is a defect, and the next is read.

    Args:
        start: the number of the first of `rows` in the source.
    """
    read = 0
    try:
        for record in rows:
            read += 1
            yield start + read - 1, record
        return
    except Exception:  # which rows raise is found below
        log.debug("%s: read row by row from row %d on", source.label, start + read, exc_info=True)
    for number in range(read, len(rows)):
        try:
            record = rows[number]
        except Exception as error:
            defects.add_raised(source, start + number, error)
            continue
        yield start + number, record
