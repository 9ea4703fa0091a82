"""What a comparison says, whoever shows it: for each test set a title, columns of cells, and remarks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from embedgrad_cli.comparison.entries import (
    CHOSEN,
    HOLM_P,
    VALIDATION,
    Entry,
    FlatRecord,
    P,
    differing_settings,
    keys_of,
)
from embedgrad_cli.config.arm_spec import legend, short_names
from embedgrad_cli.config.spelling import one_line
from embedgrad_cli.evaluation.significance import show_p

HEADINGS = {
    VALIDATION: "validation",
    "comparison.difference": "difference",
    P: "p",
    "num_examples": "n",
    "drift.mean_relative_l2": "drift",
    "drift.nearest_kept": "nearest kept",
    "elsewhere.kl": "elsewhere",
}
LONGEST_CELL = 40
ROWS_OF_VALIDATION = {
    "config.seed",
    *(f"config.task.{key}" for key in ("data_dir", "split.validation", "split.num_validation", "split.folds", "fold")),
}


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
    """The lines of one test set; `remarks` are sentences below them."""

    title: str
    columns: list[Column]
    remarks: list[str]


def sections(groups: Sequence[Sequence[Entry]]) -> list[Section]:
    """One section for each test set, all with the same columns.

    Settings of the task that differ between sections alone have no column: the titles say what was tested.
    """
    records = [[entry.record for entry in group] for group in groups]
    every = list(chain.from_iterable(records))
    within = {key for rows in records for key in differing_settings(rows)}
    settings = [key for key in differing_settings(every) if key in within or not key.startswith("config.task.")]
    names = run_names([entry for group in groups for entry in group])
    result = []
    for group, rows in zip(groups, records, strict=True):
        columns = [Column("run", [names[entry.paths] for entry in group], is_number=False)]
        columns += [_setting_column(key, every, rows) for key in settings]
        columns += _result_columns(every, rows)
        result.append(Section(title(group[0]), columns, list(_remarks(group, names))))
    return result


def title(entry: Entry) -> str:
    """What a run was tested on: "sst2 · test split, 872 examples · test set 1a2b3c4d"."""
    r = entry.record
    folds = len(entry.paths) // r["seeds"]
    pooled = f" of {folds} folds" if folds > 1 else ""
    rows = f"each of {r['seeds']} seeds its own test set" if r.get("test_sets", 1) > 1 else "test set"
    return f"{r['task']} · {r['split']} split, {r['num_examples']} examples{pooled} · {rows} {entry.test_hash[:8]}"


def _remarks(group: Sequence[Entry], names: dict[tuple[Path, ...], str]) -> Iterable[str]:
    """Of several runs first what validation chose and how that fared in the test; then what else is to be known."""
    records = [entry.record for entry in group]
    chosen = next((entry for entry in group if entry.record[CHOSEN]), None)
    if chosen:
        yield f"Validation chose run {names[chosen.paths]} ({_percent(chosen.record, VALIDATION)} %): {_tested(chosen)}"
        if not ROWS_OF_VALIDATION.isdisjoint(differing_settings(records)):
            yield "These runs were not all validated on the same rows, so the choice is a rough one."
    elif len(group) > 1:
        yield "Not every run has a validation, so none is chosen: whoever takes the best of these chooses on test rows."
    yield from legend(_arm_names(records))
    if any(one["seeds"] > 1 for one in records):
        rule = "± is the standard deviation over seeds, p their combination by Rüger's rule"
        mixed = " --mixed" if any(one.get("test_sets", 1) > 1 for one in records) else ""
        yield f"{rule}; compare --each-seed{mixed} shows each."
    seen = [names[entry.paths] for entry in group if entry.record["seen_rows"]]
    if seen:
        yield f"Tested on rows that had trained or selected a prompt (task.overlap=allow): {', '.join(seen)}."


def _tested(chosen: Entry) -> str:
    """The test of what validation chose. The choice did not look at the test, so its p needs no correction."""
    r = chosen.record
    arm = chosen.candidate.removesuffix(".accuracy")
    said = _percent(r, chosen.candidate, (f"{arm}.ci95.low", f"{arm}.ci95.high"), unit=" %")
    said = f"{said} on the {r['split']} split"
    if P not in r:
        return f"{said}."
    limits = () if r["seeds"] > 1 else ("comparison.ci95.low", "comparison.ci95.high")
    difference = _percent(r, "comparison.difference", limits, "+", unit=" points")
    short = short_names(_arm_names([r]))
    candidate, baseline = short[r["comparison.candidate"]], short[r["comparison.baseline"]]
    return f"{candidate} {said}, {difference} against {baseline}, {show_p(r[P], 'p ')} (of this test alone)."


def run_names(entries: Sequence[Entry]) -> dict[tuple[Path, ...], str]:
    """Each run's path below the folder that holds them all; the folds of one as `sweep/{0,1,2}`."""
    places = {entry.paths: [path.resolve() for path in entry.paths] for entry in entries}
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
    compared = {one[key] for one in every for key in ("comparison.baseline", "comparison.candidate") if key in one}
    short = short_names(_arm_names(every))
    columns = []
    if any(one["seeds"] > 1 for one in every):
        columns.append(Column("seeds", [str(row["seeds"]) for row in rows]))
    if any(one.get(VALIDATION) is not None for one in every):
        columns.append(Column("validation (%)", [_validation(row) for row in rows]))
    for name in short:
        key = f"arms.{name}.accuracy"
        shows_interval = name in compared or len(short) == 1
        columns.append(Column(f"{short[name]} (%)", [_accuracy(row, key, shows_interval) for row in rows]))
    limits = ("comparison.ci95.low", "comparison.ci95.high")
    corrected = any(one.get(HOLM_P) != one.get(P) for one in every)
    columns += [
        Column("difference (points)", [_percent(row, "comparison.difference", limits, "+") for row in rows]),
        Column("wins, losses", [_wins_and_losses(row) for row in rows]),
        Column("p (Holm)" if corrected else "p", [_p_value(row.get(HOLM_P)) for row in rows]),
        Column("n", [str(row["num_examples"]) for row in rows]),
    ]
    if any(one.get("drift.mean_relative_l2") is not None for one in every):
        columns.append(Column("drift", [_drift(row.get("drift.mean_relative_l2")) for row in rows]))
    if any(one.get("drift.nearest_kept") is not None for one in every):
        columns.append(Column("nearest kept", [_kept(row) for row in rows]))
    if any(one.get("elsewhere.kl") is not None for one in every):
        columns.append(Column("elsewhere (KL)", [_kl(row) for row in rows]))
    return columns


def _arm_names(records: Sequence[FlatRecord]) -> list[str]:
    arms = [key for key in keys_of(records) if key.startswith("arms.") and key.endswith(".accuracy")]
    return [key.removeprefix("arms.").removesuffix(".accuracy") for key in arms]


def _validation(row: FlatRecord) -> str:
    return _percent(row, VALIDATION) + (" (chosen)" if row[CHOSEN] else "")


def _accuracy(row: FlatRecord, key: str, shows_interval: bool = True) -> str:
    arm = key.removesuffix(".accuracy")
    return _percent(row, key, (f"{arm}.ci95.low", f"{arm}.ci95.high") if shows_interval else ())


def _percent(row: FlatRecord, key: str, limits: Sequence[str] = (), sign: str = "", unit: str = "") -> str:
    """A fraction of 1 in per cent: with its interval, or of several seeds with its standard deviation."""
    if row.get(key) is None:
        return ""
    value = f"{100 * row[key]:{sign}.1f}"
    if f"{key}.sd" in row:
        return f"{value} ± {100 * row[f'{key}.sd']:.1f}{unit}"
    interval = [f"{100 * row[limit]:{sign}.1f}" for limit in limits]
    return f"{value}{unit} ({' to '.join(interval)})" if interval else f"{value}{unit}"


def _p_value(p: float | None) -> str:
    return "" if p is None else show_p(p)


def _drift(mean: float | None) -> str:
    return "" if mean is None else f"{mean:.2f}"


def _kept(row: FlatRecord) -> str:
    kept, total = row.get("drift.nearest_kept"), row.get("drift.num_tokens")
    return "" if kept is None or total is None else f"{kept:.3g}/{total}"


def _kl(row: FlatRecord) -> str:
    """In nats per token, of several seeds with its standard deviation."""
    kl, sd = row.get("elsewhere.kl"), row.get("elsewhere.kl.sd")
    return "" if kl is None else f"{kl:.3f}" + ("" if sd is None else f" ± {sd:.3f}")


def _wins_and_losses(row: FlatRecord) -> str:
    """What the candidate mended and broke; of several seeds, whose tests may be of the same rows, nothing."""
    wins, losses = row.get("comparison.wins"), row.get("comparison.losses")
    return "" if wins is None or losses is None else f"{wins}, {losses}"
