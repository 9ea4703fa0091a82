"""Reads the files of a folder, or a data set of the hub, as they are: nothing is guessed or converted.

jsonl, json, csv and tsv are read with Python's own parsers. The readers of `datasets` infer a type for each column:
they turn the text "2020-01-01" into a date and 1 into 1.0, fill absent keys with null, and cannot say which row
is broken. Parquet files and the hub, whose columns have types already, are read by `datasets`.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import Any

from embedgrad_cli.assets import resolve
from embedgrad_cli.errors import DataError
from embedgrad_cli.hub import offline_if_out_of_reach
from embedgrad_cli.schema import TaskConfig
from embedgrad_cli.tasks.rows import Defects, Source

Records = list[tuple[int, Mapping[str, Any]]]
ENDINGS = ("jsonl", "json", "csv", "tsv", "parquet")
# Numbers in a JSON file are kept as they are written (1.50 stays "1.50"); NaN is a missing value.
JSON_AS_WRITTEN: dict[str, Any] = {"parse_int": str, "parse_float": str, "parse_constant": lambda name: None}


def read_sources(task: TaskConfig) -> dict[str, Source]:
    """The sources of the splits that the task names ("train" and maybe "validation", "test").

    Raises:
        DataError: a split cannot be found or read, or two splits are the same file.
    """
    read = _folder_reader(task) if task.data_dir else _hub_reader(task)
    sources = {split: read(split, names) for split, names in wanted_splits(task).items()}
    labels = [source.label for source in sources.values()]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice:
        splits = [split for split, source in sources.items() if source.label == twice]
        raise DataError(
            f"{twice} would be both the {' and the '.join(splits)} split of task {task.name}, and they must not "
            f"share an example. Give them different names in task.split, or set task.split.{splits[-1]}=null and "
            f"task.split.num_{splits[-1]}=N to hold rows out of train."
        )
    return sources


def wanted_splits(task: TaskConfig) -> dict[str, list[str]]:
    """The candidate names of each split that is read rather than held out of train."""
    split = task.split
    named = {"train": split.train, "validation": split.validation, "test": split.test}
    return {name: names for name, names in named.items() if names}


def _folder_reader(task: TaskConfig) -> Callable[[str, Sequence[str]], Source]:
    folder = Path(resolve(str(task.data_dir)))
    if not folder.is_dir():
        raise DataError(f"task.data_dir={task.data_dir} is not a folder. {_files_needed(task)}")

    def read(split: str, names: Sequence[str]) -> Source:
        for name in names:
            found = [path for ending in ENDINGS if (path := folder / f"{name}.{ending}").is_file()]
            if len(found) > 1:
                files = " and ".join(path.name for path in found)
                raise DataError(
                    f"{folder} holds {files}: it is not clear which is the {split} split. Keep one of them."
                )
            if found:
                return read_file(found[0], task.field)
        present = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_file())[:20]) or "no file"
        raise DataError(
            f"no {split} split of task {task.name} in task.data_dir={task.data_dir}: looked for "
            f"{_file_names(names)} (or {', '.join(ENDINGS[1:])}), found {present}. Rename a file, or set "
            f"task.split.{split}=[NAME]{'' if split == 'train' else '; null holds rows out of train'}."
        )

    return read


def read_file(path: Path, field: str | None = None) -> Source:
    """Read one file by its ending. `field` is the key under which a json file holds its rows.

    Raises:
        DataError: the file is empty, not UTF-8, or not what its ending says; broken rows are named together.
    """
    ending = path.suffix.lstrip(".")
    if ending == "parquet":
        source = Source(str(path), path.stem, _read_parquet(path))
    elif ending == "json":
        source = _read_json(path, _read_text(path), field)
    elif ending == "jsonl":
        source = _read_json_lines(path, _read_text(path))
    else:
        source = _read_table(path, _read_text(path), ending)
    if not source.records:
        raise DataError(f"{path} holds no row. A data file needs at least one.")
    return source


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        byte = f"0x{content[error.start]:02x}"
        raise DataError(f"{path}, line {line}: not UTF-8 (byte {byte}). Save the file in the encoding UTF-8.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    if not text.strip():
        raise DataError(f"{path} is empty. A data file needs at least one row.")
    return text


def _read_json_lines(path: Path, text: str) -> Source:
    source, defects = Source(str(path), path.stem, [], unit="line"), Defects()
    for number, line in enumerate(text.split("\n")):  # splitlines() would also split at U+2028 inside a text
        if not line.strip():
            continue
        try:
            record = json.loads(line, **JSON_AS_WRITTEN)
        except ValueError as error:
            defects.add(source, number, f"not JSON: {_json_error(error)}")
            continue
        _add_record(source, defects, number, record)
    defects.raise_if_any()
    return source


def _read_json(path: Path, text: str, field: str | None) -> Source:
    try:
        content = json.loads(text, **JSON_AS_WRITTEN)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and field is None:  # many a .json file holds JSON lines
            return _read_json_lines(path, text)
        raise DataError(f"{path}, line {error.lineno}: not JSON: {_json_error(error)}. Correct the file.") from None
    rows = content.get(field) if isinstance(content, dict) and field else content
    if not isinstance(rows, list):
        lists = [key for key, value in content.items() if isinstance(value, list)] if isinstance(content, dict) else []
        hint = f"Lists in it: {', '.join(lists) or 'none'}."
        where = f"no list under task.field={field}" if field else "no list of rows (task.field is not set)"
        raise DataError(f"{path} holds {where}. {hint} A json file is a list of objects, or task.field names the list.")
    source, defects = Source(str(path), path.stem, []), Defects()
    for number, record in enumerate(rows):
        _add_record(source, defects, number, record)
    defects.raise_if_any()
    return source


def _read_table(path: Path, text: str, ending: str) -> Source:
    """csv with the usual quoting; tsv without any, because a quotation mark in it is part of the text."""
    source, defects = Source(str(path), path.stem, [], unit="data row"), Defects()
    table = csv.reader(io.StringIO(text, newline=""), strict=True) if ending == "csv" else _tab_separated(text)
    csv.field_size_limit(sys.maxsize)
    try:
        header = next(table)
        if len(set(header)) < len(header):
            raise DataError(f"{path}, line 1: a column name occurs twice in the header: {', '.join(header)}.")
        for number, fields in enumerate(table):
            if not fields:
                continue
            if len(fields) != len(header):
                columns = f"{len(fields)} fields, but the header has {len(header)} ({', '.join(header)})"
                defects.add(source, number, columns)
            source.records.append((number, dict(zip(header, fields, strict=False))))
    except csv.Error as error:
        raise DataError(f"{path}, line {table.line_num}: not csv: {error}. Correct the quoting there.") from None  # type: ignore[union-attr]
    defects.raise_if_any()
    return source


def _tab_separated(text: str) -> Any:
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    return (line.split("\t") if line else [] for line in lines)


def _add_record(source: Source, defects: Defects, number: int, record: Any) -> None:
    if isinstance(record, dict):
        source.records.append((number, record))
    else:
        defects.add(source, number, f"a {type(record).__name__} where an object with named fields was expected")


def _json_error(error: ValueError) -> str:
    return f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)


def _datasets() -> Any:
    """The library `datasets`, silent, and never running code that comes with a data set."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.config.HF_DATASETS_TRUST_REMOTE_CODE = False  # its 3.x versions would ask on the terminal
    return datasets


def _read_parquet(path: Path) -> Records:
    datasets = _datasets()
    try:
        with tempfile.TemporaryDirectory() as cache:
            return list(enumerate(datasets.Dataset.from_parquet(escape(str(path)), cache_dir=cache).to_list()))
    except Exception as error:  # the library raises whatever its readers raise
        raise DataError(f"{path} cannot be read as parquet: {_cause(error)}. Write the file again.") from None


def _hub_reader(task: TaskConfig) -> Callable[[str, Sequence[str]], Source]:
    hub = task.hub
    if not hub.path:
        raise DataError(
            f"task {task.name} has no data: neither task.data_dir nor task.hub.path is set. {_files_needed(task)}"
        )
    name = hub.path + (f", {hub.name}" if hub.name else "")
    try:
        datasets = _datasets()
        with offline_if_out_of_reach(datasets.config):
            loaded = datasets.load_dataset(hub.path, hub.name, revision=hub.revision)
    except Exception as error:  # no network, no such data set, a data set that needs its own code, a full disk
        raise DataError(
            f"task {task.name}: the data set {name} could not be loaded from the hub ({_cause(error)}). "
            f"{_files_needed(task)}"
        ) from None

    def read(split: str, names: Sequence[str]) -> Source:
        found = next((name for name in names if name in loaded), None)
        if found is None:
            raise DataError(
                f"no {split} split of task {task.name} in the data set {name} of the hub: looked for "
                f"{', '.join(names)}, found {', '.join(map(str, loaded))}. Set task.split.{split}=[NAME]."
            )
        return Source(f"{name}, split {found}", found, list(enumerate(loaded[found].to_list())))

    return read


def _files_needed(task: TaskConfig) -> str:
    """How to point at local files: which names are looked for."""
    files = [f"{_file_names(names)} ({split})" for split, names in wanted_splits(task).items()]
    return (
        f"With local files, give task.data_dir=DIR, a folder that holds {' and '.join(files)}; the endings "
        f"{', '.join(ENDINGS[1:-1])} and {ENDINGS[-1]} are read as well."
    )


def _file_names(names: Sequence[str]) -> str:
    return " or ".join(f"{name}.{ENDINGS[0]}" for name in names)


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    words = (str(error).strip() or "no message").splitlines()[0].rstrip(".")
    return f"{type(error).__name__}: {words[:200]}"
