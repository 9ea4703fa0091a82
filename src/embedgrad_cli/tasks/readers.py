"""Reads files as they are: nothing is guessed or converted.

jsonl, json, csv and tsv are read with Python's own parsers. The readers of `datasets` infer a type for each column:
they turn the text "2020-01-01" into a date and 1 into 1.0, fill absent keys with null, and cannot say which row
is broken. Parquet files, whose columns have types already, are read by Arrow. Lines and rows come one at a time, so
that a large file takes no more memory than its rows do.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedgrad_cli.errors import DataError
from embedgrad_cli.tasks.defects import Defects, Record, Source

PARQUET_BATCH = 1_000
# Numbers in a JSON file are kept as they are written (1.50 stays "1.50"); NaN is a missing value.
JSON_AS_WRITTEN: dict[str, Any] = {"parse_int": str, "parse_float": str, "parse_constant": lambda name: None}


def read_file(path: Path, field: str | None = None) -> Source:
    """The source that reads one file by its ending. `field` is the key under which a json file holds its rows.

    Reading it raises a DataError if the file is empty, not UTF-8, or not what its ending says.
    """
    ending = path.suffix.lstrip(".")
    if ending == "parquet":
        return _source(path, "row", lambda source, defects: _read_parquet(path))
    if ending == "json":
        return _source(path, "row", lambda source, defects: _read_json(source, path, field, defects))
    if ending == "jsonl":
        return _source(path, "line", lambda source, defects: _read_json_lines(source, _lines(path), defects))
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
    """The file's lines, one at a time. By default only a line feed ends one: U+2028 may stand inside a text."""
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            yield from file
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
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


def _read_json_lines(source: Source, lines: Iterable[str], defects: Defects) -> Iterator[Record]:
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            record = json.loads(line, **JSON_AS_WRITTEN)
        except ValueError as error:
            defects.add(source, number, f"not JSON: {_json_error(error)}")
            continue
        yield from _records(source, defects, number, record)


def _read_json(source: Source, path: Path, field: str | None, defects: Defects) -> Iterator[Record]:
    text = "".join(_lines(path))
    try:
        content = json.loads(text, **JSON_AS_WRITTEN) if text.strip() else []
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and field is None:  # many a .json file holds JSON lines
            yield from _read_json_lines(replace(source, unit="line"), text.split("\n"), defects)
            return
        raise DataError(f"{path}, line {error.lineno}: not JSON: {_json_error(error)}. Correct the file.") from None
    rows = content.get(field) if isinstance(content, dict) and field else content
    if not isinstance(rows, list):
        lists = [key for key, value in content.items() if isinstance(value, list)] if isinstance(content, dict) else []
        hint = f"Lists in it: {', '.join(lists) or 'none'}."
        where = f"no list under task.field={field}" if field else "no list of rows (task.field is not set)"
        raise DataError(f"{path} holds {where}. {hint} A json file is a list of objects, or task.field names the list.")
    for number, record in enumerate(rows):
        yield from _records(source, defects, number, record)


def _read_table(source: Source, path: Path, ending: str, defects: Defects) -> Iterator[Record]:
    """csv with the usual quoting; tsv without any, because a quotation mark in it is part of the text."""
    csv.field_size_limit(sys.maxsize)
    table = csv.reader(_lines(path, newline=""), strict=True) if ending == "csv" else _tab_separated(_lines(path))
    try:
        header: list[str] = next(table, [])
        if len(set(header)) < len(header):
            raise DataError(f"{path}, line 1: a column name occurs twice in the header: {', '.join(header)}.")
        for number, fields in enumerate(table):
            if len(fields) == len(header):
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


def _json_error(error: ValueError) -> str:
    return f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)


def _read_parquet(path: Path) -> Iterator[Record]:
    import pyarrow.parquet  # what `datasets` reads it with

    try:
        batches = pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=PARQUET_BATCH)
        yield from enumerate(record for batch in batches for record in batch.to_pylist())
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as parquet: {cause(error)}. Write the file again.") from None


def cause(error: BaseException) -> str:
    """The first line of what is at the bottom of an error of another library."""
    while error.__cause__ is not None:
        error = error.__cause__
    words = (str(error).strip() or "no message").splitlines()[0].rstrip(".")
    return f"{type(error).__name__}: {words[:200]}"
