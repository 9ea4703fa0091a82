"""What a tracker gets of a run directory: parameters, points of curves, final figures, tables and files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from embedgrad_cli.config.arm_spec import short_names
from embedgrad_cli.evaluation.significance import verdict
from embedgrad_cli.reports.runs_page import REPORT
from embedgrad_cli.storage.arm_records import ArmSummary, Comparison
from embedgrad_cli.storage.record import Json
from embedgrad_cli.storage.results_record import Results
from embedgrad_cli.storage.run_directory import flatten, read_settings
from embedgrad_cli.tracking.tracker import Outcome, Point, Table

ARMS = ("arm", "accuracy", "low", "high", "correct", "invalid", "in full")
COMPARISONS = ("candidate", "baseline", "difference", "low", "high", "wins", "losses", "p", "p (Holm)")
FILES = ("prompt.safetensors", "results.json", REPORT)
LEFT_OUT = ("tracker", "output_dir")  # say where the run is shown and kept, not what it is
SWEEP = ("multirun.yaml", "study.journal")  # what Hydra's sweeper, or embedgrad's study, leaves in a sweep's folder


def names_of(directory: Path) -> tuple[str, str | None]:
    """What a run is called, and its sweep, if it is of one."""
    folder = directory.absolute()
    if any((folder.parent / name).exists() for name in SWEEP):
        return f"{folder.parent.name}/{folder.name}", folder.parent.name
    return folder.name, None


def parameters(config: Path) -> dict[str, str]:
    """The settings of a run by their dotted keys, as text.

    Raises:
        UserError: the file cannot be read.
    """
    settings = flatten({key: value for key, value in read_settings(config).items() if key not in LEFT_OUT})
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()}


def new_points(metrics: Path, step: int, validated: bool) -> list[Point]:
    """The points of metrics.jsonl behind the one that was the last; a line that is being written waits."""
    if not metrics.exists():
        return []
    whole, _, _ = metrics.read_bytes().rpartition(b"\n")
    points = (_point(json.loads(line)) for line in whole.splitlines())
    return [point for point in points if point.order > order_of(step, validated)]


def order_of(step: int, validated: bool) -> int:
    """The validation after a step stands behind it and before the next one."""
    return 2 * step + validated


def outcome_of(directory: Path, how: str) -> Outcome:
    """Everything that there is in the end.

    Raises:
        UserError: the results cannot be read.
    """
    if how != "finished" or not (directory / "results.json").exists():
        return Outcome(how)
    results = Results.read(directory / "results.json")
    short = short_names(list(results.arms))
    main, comparisons = results.main_comparison, results.every_comparison
    tables = [Table("arms", ARMS, tuple(_arm(name, short[name], arm) for name, arm in results.arms.items()))]
    if comparisons:
        tables.append(Table("comparisons", COMPARISONS, tuple(_comparison(one, short) for one in comparisons)))
    said = verdict(main, results.num_examples) if main else ""
    files = [directory / name for name in FILES]
    return Outcome(how, dict(_figures(results)), tables, said, [file for file in files if file.exists()])


def _point(row: Json) -> Point:
    step = int(row["step"])
    if "validation_accuracy" in row:
        found = {"validation/accuracy": row["validation_accuracy"], "validation/loss": row["validation_loss"]}
        return Point(step, found, order_of(step, True))
    named = {
        f"train/{name}": row[name]
        for name in ("loss", "grad_norm", "lr", "drift", "reward", "rows_used")
        if name in row
    }
    named["train/tokens_per_second"] = row["tokens"] / max(row["seconds"], 1e-9)
    return Point(step, {name: value for name, value in named.items() if value is not None}, order_of(step, False))


def _figures(results: Results) -> Iterator[tuple[str, float]]:
    for name, label in short_names(list(results.arms)).items():
        yield f"{results.split}/{label}/accuracy", results.arms[name].accuracy
    if results.comparison:
        yield f"{results.split}/difference", results.comparison.difference
        yield f"{results.split}/mcnemar_p", results.comparison.mcnemar_p
    if results.validation:
        yield "best/validation_accuracy", results.validation.accuracy
        yield "best/validation_loss", results.validation.loss
        yield "best/step", results.validation.step


def _arm(name: str, label: str, arm: ArmSummary) -> tuple[str | float | None, ...]:
    return label, arm.accuracy, *arm.ci95, arm.correct, arm.invalid, name


def _comparison(one: Comparison, short: Mapping[str, str]) -> tuple[str | float | None, ...]:
    named = (short[one.candidate], short[one.baseline], one.difference, *one.ci95)
    return *named, one.wins, one.losses, one.mcnemar_p, one.holm_p
