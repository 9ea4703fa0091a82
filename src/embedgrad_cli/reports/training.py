"""How a training went: its quantities over the steps, which step validation chose, and where the time went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_high

from embedgrad_cli.reports.charts import Chart, lines_over_steps
from embedgrad_cli.storage.metrics_records import StepMetrics, ValidationMetrics
from embedgrad_cli.storage.results_record import Results, Timing
from embedgrad_cli.terminal.pace import duration

# Title, and what a line of metrics.jsonl says of it.
OF_STEPS: tuple[tuple[str, Callable[[StepMetrics], float | None]], ...] = (
    ("Training loss", lambda row: row.loss),
    ("Gradient norm, before clipping", lambda row: row.grad_norm),
    ("Drift from the seed, relative to its length", lambda row: row.drift),
    ("Mean reward of the answers drawn", lambda row: row.reward),
)


@dataclass(frozen=True)
class Phase:
    """A part of a run: `width` of the longest one's, from 0 to 100."""

    name: str
    words: str
    width: float


@dataclass(frozen=True)
class Course:
    """The lines of a metrics.jsonl: those of steps, and those of validations."""

    steps: list[StepMetrics]
    validations: list[ValidationMetrics]


def read_course(file: Path) -> Course:
    """Read metrics.jsonl; nothing where there is none.

    Raises:
        UserError: a line is not what `optimize` writes.
    """
    course = Course([], [])
    for number, raw in enumerate(file.read_bytes().splitlines() if file.exists() else (), start=1):
        line, place = raw.decode(errors="replace"), f"{file}, line {number}"
        if '"validation_accuracy"' in line:
            course.validations.append(ValidationMetrics.parse(line, place))
        else:
            course.steps.append(StepMetrics.parse(line, place))
    return course


def charts_of(course: Course, chosen: int | None) -> list[Chart]:
    """Validation first, as it is what chose the prompt."""
    charts = []
    if course.validations:
        accuracy = [(row.step, row.validation_accuracy) for row in course.validations]
        loss = [(row.step, row.validation_loss) for row in course.validations]
        charts.append(_chart("Validation accuracy", accuracy, chosen, percent=True, with_marks=True))
        charts.append(_chart("Validation loss of the gold targets", loss, chosen, with_marks=True))
    for title, value in OF_STEPS:
        points = [(row.step, found) for row in course.steps if (found := value(row)) is not None]
        if points:
            charts.append(_chart(title, points, chosen))
    return charts


def _chart(
    title: str, points: Sequence[tuple[int, float]], chosen: int | None, percent: bool = False, with_marks: bool = False
) -> Chart:
    return lines_over_steps(title, [(title, points)], chosen, percent, with_marks)


def phases_of(timing: Timing | None) -> list[Phase]:
    """The phases that took any time, in the order of a run."""
    if timing is None:
        return []
    longest = max(timing.phases.values()) or 1.0
    return [
        Phase(name, duration(seconds), round(100 * seconds / longest, 2))
        for name, seconds in timing.phases.items()
        if seconds >= 0.05
    ]


def selection_of(results: Results, course: Course) -> str:
    """What was chosen, on which rows: one sentence that says what the test had no part in."""
    chosen = results.validation
    if chosen is None:
        return "Nothing was chosen by these rows or by others: the prompts are as they were given."
    said = f"the prompt after step {chosen.step} (accuracy {chosen.accuracy:.1%}, loss {chosen.loss:.3f})"
    if results.artifact is not None:
        return f"Chosen by validation in the run that made the artifact: {said}. {_new_rows(results)}"
    counts = (results.data.counts if results.data else None) or {}
    rows = f" on {counts['validation']} rows" if "validation" in counts else ""
    number = f", the best of {len(course.validations)}" if len(course.validations) > 1 else ""
    return f"Chosen by validation{rows}: {said}{number}. No test row took part in the choice."


def _new_rows(results: Results) -> str:
    """Whether the rows that an artifact is tested on were new to it."""
    overlap = results.overlap
    if overlap is None:
        return "Whether the rows tested here had a part in that is not known."
    if overlap.num_rows and not overlap.excluded:
        return f"{overlap.num_rows} of the rows tested here trained or selected a prompt."
    return "No row tested here had a part in that."


def memory_of(results: Results) -> str | None:
    """The peak of memory in GiB."""
    peak = results.peak_memory_bytes
    return None if peak is None else f"{peak / 2**30:.2f} GiB"


def seconds_per_step(course: Course) -> float | None:
    """The median over steps."""
    return median_high(row.seconds for row in course.steps) if course.steps else None
