"""The page of several finished runs: what settings did in validation, and how the chosen run fared in the test."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embedgrad_cli.comparison.entries import (
    CHOSEN,
    VALIDATION,
    Entry,
    FlatRecord,
    by_test_set,
    by_validation,
    differing_settings,
    entry_of,
    judged,
    keys_of,
    pool_seeds,
)
from embedgrad_cli.comparison.runs import Run, name_templates, pool_folds
from embedgrad_cli.comparison.sections import Section, heading, run_names, sections
from embedgrad_cli.config.spelling import one_line
from embedgrad_cli.reports.charts import Chart, ParallelChart, Setting, lines_over_steps, parallel, scatter
from embedgrad_cli.reports.training import read_course

LARGEST_NUMBER_OF_CURVES = 200
REPORT = "report.html"  # in a run directory


@dataclass(frozen=True)
class TestSet:
    """The runs that were tested on the same rows.

    `verdict` says what validation chose and how that fared; `links` are the pages of the runs, "" where a line has
    none; `chosen` is the number of the line that validation chose, None where not every run was validated.
    """

    section: Section
    verdict: str
    remarks: list[str]
    links: list[str]
    chosen: int | None
    settings: list[Chart]
    parallel: ParallelChart | None
    curves: list[Chart]


@dataclass(frozen=True)
class RunsPage:
    """What `templates/runs.html.j2` shows."""

    title: str
    num_runs: int
    unfinished: list[str]
    test_sets: list[TestSet]
    command: str


def runs_page(runs: Sequence[Run], unfinished: Sequence[Path], file: Path, title: str, command: str) -> RunsPage:
    """Gather the page of several runs.

    Args:
        file: where the page will stand, from which links go out.
        command: what makes the page again.

    Raises:
        CompareError: the runs hold a fold twice.
        UserError: a metrics.jsonl cannot be read.
    """
    entries = pool_seeds([entry_of(run) for run in pool_folds(name_templates(runs))])
    groups = [_by_validation(judged(group)) for group in by_test_set(entries)]
    return RunsPage(
        title=title,
        num_runs=len(runs),
        unfinished=[str(path) for path in unfinished],
        test_sets=[_test_set(group, section, file) for group, section in zip(groups, sections(groups), strict=True)],
        command=command,
    )


def _by_validation(group: Sequence[Entry]) -> list[Entry]:
    """The best in validation first; never by a test figure."""
    validated = [entry for entry in group if entry.record.get(VALIDATION) is not None]
    rest = [entry for entry in group if entry.record.get(VALIDATION) is None]
    return sorted(validated, key=by_validation, reverse=True) + rest


def _test_set(group: Sequence[Entry], section: Section, file: Path) -> TestSet:
    settings, together = _settings(group)
    remarks = list(section.remarks)  # of several, the first says what was chosen, or why nothing was
    chosen = next((number for number, entry in enumerate(group) if entry.record.get(CHOSEN)), None)
    return TestSet(
        section=section,
        verdict=remarks.pop(0) if len(group) > 1 else "One setting, so nothing was chosen.",
        remarks=remarks,
        links=[_link(entry, file) for entry in group],
        chosen=chosen,
        settings=settings,
        parallel=together,
        curves=_curves(group, chosen),
    )


def _link(entry: Entry, file: Path) -> str:
    """The page of a run, as it is reached from this one."""
    report = entry.paths[0] / REPORT
    if len(entry.paths) > 1 or not report.exists():
        return ""
    return Path(os.path.relpath(report.resolve(), file.resolve().parent)).as_posix()


def _settings(group: Sequence[Entry]) -> tuple[list[Chart], ParallelChart | None]:
    """Each setting that differs against validation accuracy and, of more than two, all of them together."""
    validated = [entry for entry in group if entry.record.get(VALIDATION) is not None]
    if len(validated) < 2:
        return [], None
    records, names = [entry.record for entry in validated], run_names(validated)
    every, differing = keys_of(records), differing_settings(records)
    labels = {key: heading(key, every) for key in differing}
    accuracies = [record[VALIDATION] for record in records]
    chosen = [bool(record.get(CHOSEN)) for record in records]
    charts = []
    for key, label in labels.items():
        words = [
            f"{names[entry.paths]}: {label} {one_line(entry.record.get(key))}, {accuracy:.1%}"
            for entry, accuracy in zip(validated, accuracies, strict=True)
        ]
        values = [_value(record, key) for record in records]
        charts.append(scatter(label, list(zip(values, accuracies, words, chosen, strict=True))))
    if len(differing) < 3:
        return charts, None
    columns = [(label, [_value(record, key) for record in records]) for key, label in labels.items()]
    return charts, parallel("All of them together", columns, accuracies, chosen.index(True) if any(chosen) else None)


def _value(record: FlatRecord, key: str) -> Setting:
    """A number as such; anything else, and what a run does not have, in words."""
    value = record.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else one_line(value)


def _curves(group: Sequence[Entry], chosen: int | None) -> list[Chart]:
    """Validation over the steps of every run, the chosen one's standing out."""
    accuracies: list[tuple[str, list[tuple[int, float]]]] = []
    losses: list[tuple[str, list[tuple[int, float]]]] = []
    highlighted = None
    names = run_names(group)
    for number, entry in enumerate(group[:LARGEST_NUMBER_OF_CURVES]):
        for path in entry.paths:
            rows = read_course(path / "metrics.jsonl").validations
            if rows:
                highlighted = len(accuracies) if number == chosen and highlighted is None else highlighted
                label = names[entry.paths]
                accuracies.append((label, [(row.step, row.validation_accuracy) for row in rows]))
                losses.append((label, [(row.step, row.validation_loss) for row in rows]))
    if not accuracies:
        return []
    stands_out = -1 if highlighted is None else highlighted
    return [
        lines_over_steps("Validation accuracy", accuracies, percent=True, highlighted=stands_out),
        lines_over_steps("Validation loss of the gold targets", losses, highlighted=stands_out),
    ]
