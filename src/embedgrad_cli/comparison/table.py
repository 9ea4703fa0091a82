"""Runs as a table for people (`table`, `md`) and as records for programs (`csv`, `json`)."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from embedgrad_cli.comparison.runs import Run
from embedgrad_cli.config.spelling import one_line
from embedgrad_cli.evaluation.significance import show_p
from embedgrad_cli.storage.record import Json
from embedgrad_cli.storage.run_records import ArmSummary, Comparison, Drift

HEADINGS = {
    "comparison.difference": "difference",
    "comparison.mcnemar_p": "p",
    "num_examples": "n",
    "drift.mean_relative_l2": "drift",
    "drift.nearest_kept": "nearest kept",
}
LONGEST_CELL = 40
PARTS = ("config", "arms", "comparison", "drift")

FlatRecord = Json


def record(run: Run) -> FlatRecord:
    """A run under flat keys: those of results.json, and `config.KEY` for every setting. Numbers are not rounded."""
    results = run.results
    flat: FlatRecord = {"run": " ".join(path.as_posix() for path in run.paths), "runs": len(run.paths)}
    flat |= {key: getattr(results, key) for key in ("task", "split", "model", "test_hash", "num_examples")}
    flat |= {f"config.{key}": value for key, value in run.config.items()}
    for name, arm in results.arms.items():
        flat |= {f"arms.{name}.{key}": value for key, value in _limits(arm, ("accuracy", "ci95", "correct"))}
    parts = ("baseline", "candidate", "difference", "ci95", "wins", "losses", "mcnemar_p")
    flat |= {f"comparison.{key}": value for key, value in _limits(results.comparison, parts)}
    drift = results.drift or Drift()
    return flat | {f"drift.{key}": getattr(drift, key) for key in ("mean_relative_l2", "nearest_kept", "num_tokens")}


def _limits(part: ArmSummary | Comparison | None, keys: Sequence[str]) -> Iterable[tuple[str, Any]]:
    for key in keys if part else ():
        if key == "ci95":
            yield from zip(("ci95.low", "ci95.high"), getattr(part, key), strict=True)
        else:
            yield key, getattr(part, key)


def keys_of(records: Sequence[FlatRecord]) -> list[str]:
    """The keys of all records, the settings and arms of each beside those of the others."""
    keys = dict.fromkeys(chain.from_iterable(records))
    return sorted(keys, key=lambda key: PARTS.index(key.partition(".")[0]) if "." in key else -1)


def differing_settings(records: Sequence[FlatRecord]) -> list[str]:
    """The keys `config.KEY` whose value is not the same in all records that have one."""
    keys = [key for key in keys_of(records) if key.startswith("config.")]
    values = {key: [one[key] for one in records if key in one] for key in keys}
    return [key for key in keys if any(value != values[key][0] for value in values[key])]


def heading(key: str, keys: Iterable[str]) -> str:
    """What a column is called: a setting by as few of its last names as no other setting shares.

    Example: `heading("config.optimizer.lr", keys)` is "lr"; of two settings `name`, "task.name" and "optimizer.name".
    """
    if not key.startswith("config."):
        # An arm may be called `text:Think first.`
        return HEADINGS.get(key, key.removeprefix("arms.").removesuffix(".accuracy"))
    others = [f".{other}" for other in keys if other.startswith("config.") and other != key]
    parts = key.split(".")[1:]
    short = (".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1))
    return next((name for name in short if not any(other.endswith(f".{name}") for other in others)), ".".join(parts))


@dataclass(frozen=True)
class Column:
    heading: str
    cells: list[str]
    is_number: bool = True


@dataclass(frozen=True)
class Section:
    """The runs of one test set."""

    title: str
    columns: list[Column]


def sections(groups: Sequence[Sequence[Run]]) -> list[Section]:
    """One section for each test set, all with the same columns.

    Settings of the task that differ between sections alone have no column: the titles say what was tested.
    """
    records = [[record(run) for run in group] for group in groups]
    every = list(chain.from_iterable(records))
    within = {key for rows in records for key in differing_settings(rows)}
    settings = [key for key in differing_settings(every) if key in within or not key.startswith("config.task.")]
    names = _run_names([run for group in groups for run in group])
    result = []
    for group, rows in zip(groups, records, strict=True):
        columns = [Column("run", [names[run.paths] for run in group], is_number=False)]
        columns += [_setting_column(key, every, rows) for key in settings]
        columns += _result_columns(every, rows)
        result.append(Section(title(group[0]), columns))
    return result


def title(run: Run) -> str:
    """What a run was tested on: "sst2 · test split, 872 examples · test set 1a2b3c4d"."""
    r = run.results
    pooled = f" of {len(run.paths)} folds" if len(run.paths) > 1 else ""
    return f"{r.task} · {r.split} split, {r.num_examples} examples{pooled} · test set {str(r.test_hash)[:8]}"


def _run_names(runs: Sequence[Run]) -> dict[tuple[Path, ...], str]:
    """Each run's path below the folder that holds them all; the folds of one as `sweep/{0,1,2}`."""
    places = {run.paths: [path.resolve() for path in run.paths] for run in runs}
    root = os.path.commonpath([place.parent for place in chain.from_iterable(places.values())])
    names = {}
    for paths, resolved in places.items():
        below = [place.relative_to(root) for place in resolved]
        folder = Path(os.path.commonpath([path.parent for path in below]))
        ends = ",".join(path.relative_to(folder).as_posix() for path in below)
        names[paths] = (folder / (f"{{{ends}}}" if len(below) > 1 else ends)).as_posix()
    return names


def _setting_column(key: str, every: Sequence[FlatRecord], rows: Sequence[FlatRecord]) -> Column:
    """Long values are cut, unless two of them would look the same then."""
    full = {_text(one[key]) for one in every if key in one}
    cut = {text: text if len(text) <= LONGEST_CELL else f"{text[: LONGEST_CELL - 1]}…" for text in full}
    shown = cut if len(set(cut.values())) == len(full) else {text: text for text in full}
    numbers = all(isinstance(one.get(key, 0), int | float) for one in every)
    cells = [shown[_text(row[key])] if key in row else "" for row in rows]
    return Column(heading(key, keys_of(every)), cells, is_number=numbers)


def _text(value: Any) -> str:
    return value.replace("\n", "\\n") if isinstance(value, str) else one_line(value)


def _result_columns(every: Sequence[FlatRecord], rows: Sequence[FlatRecord]) -> list[Column]:
    arms = [key for key in keys_of(every) if key.startswith("arms.") and key.endswith(".accuracy")]
    compared = {one[key] for one in every for key in ("comparison.baseline", "comparison.candidate") if key in one}
    columns = []
    for key in arms:
        name = key.removeprefix("arms.").removesuffix(".accuracy")
        shows_interval = name in compared or len(arms) == 1
        limits = (f"arms.{name}.ci95.low", f"arms.{name}.ci95.high") if shows_interval else ()
        columns.append(Column(f"{name} (%)", [_percent(row, key, limits) for row in rows]))
    limits = ("comparison.ci95.low", "comparison.ci95.high")
    columns += [
        Column("difference (points)", [_percent(row, "comparison.difference", limits, "+") for row in rows]),
        Column("p", [_p_value(row.get("comparison.mcnemar_p")) for row in rows]),
        Column("n", [str(row["num_examples"]) for row in rows]),
    ]
    if any(one["drift.mean_relative_l2"] is not None for one in every):
        columns.append(Column("drift", [_drift(row["drift.mean_relative_l2"]) for row in rows]))
    if any(one["drift.nearest_kept"] is not None for one in every):
        columns.append(Column("nearest kept", [_kept(row) for row in rows]))
    return columns


def _percent(row: FlatRecord, key: str, limits: Sequence[str] = (), sign: str = "") -> str:
    if key not in row:
        return ""
    value, *interval = (f"{100 * row[one]:{sign}.1f}" for one in (key, *limits))
    return f"{value} ({' to '.join(interval)})" if interval else value


def _p_value(p: float | None) -> str:
    return "" if p is None else show_p(p)


def _drift(mean: float | None) -> str:
    return "" if mean is None else f"{mean:.2f}"


def _kept(row: FlatRecord) -> str:
    kept, total = row["drift.nearest_kept"], row["drift.num_tokens"]
    return "" if kept is None or total is None else f"{kept}/{total}"


def _print_table(groups: Sequence[Sequence[Run]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console = Console(file=sys.stdout, highlight=False, width=100_000)  # lines are as long as they need to be
    for section in sections(groups):
        table = Table(box=box.ROUNDED)
        for column in section.columns:
            table.add_column(Text(column.heading), justify="right" if column.is_number else "left", overflow="fold")
        for cells in zip(*(column.cells for column in section.columns), strict=True):
            table.add_row(*map(Text, cells))
        console.print(Text(section.title), soft_wrap=True)
        console.print(table)


def _print_markdown(groups: Sequence[Sequence[Run]]) -> None:
    for number, section in enumerate(sections(groups)):
        rules = ["---:" if column.is_number else "---" for column in section.columns]
        cells = zip(*(column.cells for column in section.columns), strict=True)
        lines = [[column.heading for column in section.columns], rules, *map(list, cells)]
        print(("\n" if number else "") + section.title + "\n")
        print("\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines))


def _shown_records(groups: Sequence[Sequence[Run]]) -> list[FlatRecord]:
    """One record per run, all with the same keys: the settings that differ, and all results."""
    records = [record(run) for group in groups for run in group]
    settings = differing_settings(records)
    keys = [key for key in keys_of(records) if not key.startswith("config.") or key in settings]
    return [{key: one.get(key) for key in keys} for one in records]


def _print_csv(groups: Sequence[Sequence[Run]]) -> None:
    records = _shown_records(groups)
    writer = csv.DictWriter(sys.stdout, list(records[0]), lineterminator="\n")
    writer.writeheader()
    for one in records:
        writer.writerow({key: one_line(value) if isinstance(value, list) else value for key, value in one.items()})


def _print_json(groups: Sequence[Sequence[Run]]) -> None:
    print(json.dumps(_shown_records(groups), indent=2, ensure_ascii=False))


FORMATS: dict[str, Callable[[Sequence[Sequence[Run]]], None]] = {
    "table": _print_table,
    "md": _print_markdown,
    "csv": _print_csv,
    "json": _print_json,
}
