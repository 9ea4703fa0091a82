"""Runs as a table for people (`table`, `md`) and as records for programs (`csv`, `json`), on stdout."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from embedgrad_cli.comparison.entries import Entry, FlatRecord, differing_settings, keys_of
from embedgrad_cli.comparison.sections import Column, sections
from embedgrad_cli.config.spelling import one_line
from embedgrad_cli.guards.visible_text import visible


def parts(columns: Sequence[Column], fits: Callable[[Sequence[Column]], bool]) -> list[list[Column]]:
    """The columns in as few tables as have room for them, each with the first column, which names the runs."""
    first, *others = columns
    found = [[first]]
    for column in others:
        if len(found[-1]) > 1 and not fits([*found[-1], column]):
            found.append([first])
        found[-1].append(column)
    return found


def _print_table(groups: Sequence[Sequence[Entry]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from embedgrad_cli.guards.console import fits, for_results

    console = for_results()

    def table_of(columns: Sequence[Column]) -> Table:
        table = Table(box=box.ROUNDED)
        for column in columns:
            table.add_column(Text(column.heading), justify="right" if column.is_number else "left", overflow="fold")
        for cells in zip(*(column.cells for column in columns), strict=True):
            table.add_row(*map(Text, cells))
        return table

    for section in sections(groups):
        console.print(Text(section.title), soft_wrap=True)
        for part in parts(section.columns, lambda columns: fits(console, table_of(columns))):
            console.print(table_of(part))
        for remark in section.remarks:
            console.print(Text(remark), soft_wrap=True)


def _print_markdown(groups: Sequence[Sequence[Entry]]) -> None:
    for number, section in enumerate(sections(groups)):
        rules = ["---:" if column.is_number else "---" for column in section.columns]
        cells = zip(*(column.cells for column in section.columns), strict=True)
        lines = [[column.heading for column in section.columns], rules, *map(list, cells)]
        print(("\n" if number else "") + visible(section.title) + "\n")
        print(
            visible("\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines))
        )
        print(visible("".join(f"\n{remark}\n" for remark in section.remarks)), end="")


def _shown_records(groups: Sequence[Sequence[Entry]]) -> list[FlatRecord]:
    """One record per run, all with the same keys: the settings that differ, and all results."""
    records = [entry.record for group in groups for entry in group]
    settings = differing_settings(records)
    keys = [key for key in keys_of(records) if not key.startswith("config.") or key in settings]
    return [{key: one.get(key) for key in keys} for one in records]


def _print_csv(groups: Sequence[Sequence[Entry]]) -> None:
    records = _shown_records(groups)
    writer = csv.DictWriter(sys.stdout, list(records[0]), lineterminator="\n")
    writer.writeheader()
    for one in records:
        writer.writerow({key: _csv_cell(value) for key, value in one.items()})


def _csv_cell(value: Any) -> Any:
    return visible(one_line(value) if isinstance(value, list) else value) if isinstance(value, list | str) else value


def _print_json(groups: Sequence[Sequence[Entry]]) -> None:
    print(visible(json.dumps(_shown_records(groups), indent=2, ensure_ascii=False)))


FORMATS: dict[str, Callable[[Sequence[Sequence[Entry]]], None]] = {
    "table": _print_table,
    "md": _print_markdown,
    "csv": _print_csv,
    "json": _print_json,
}
