"""The page of one run directory: everything on it is read from there, and from the model's tokenizer if it is here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from embedgrad_cli.config.arm_spec import choose_baseline, short_names
from embedgrad_cli.evaluation.significance import show_interval, show_p, verdict
from embedgrad_cli.reports import provenance, training
from embedgrad_cli.reports.charts import Chart, IntervalChart, intervals
from embedgrad_cli.reports.prompt import PromptTokens, tokens_of
from embedgrad_cli.reports.provenance import Fact
from embedgrad_cli.reports.rows import RowsData, rows_data
from embedgrad_cli.reports.training import Phase, read_course
from embedgrad_cli.storage.arm_records import Comparison
from embedgrad_cli.storage.artifact_header import read_header
from embedgrad_cli.storage.results_record import Results
from embedgrad_cli.storage.run_directory import read_settings
from embedgrad_cli.storage.sample_records import Sample
from embedgrad_cli.terminal import remarks


@dataclass(frozen=True)
class ArmLine:
    """A line of the table of arms; what is compared is empty for the baseline."""

    name: str
    accuracy: str
    interval: str
    correct: int
    invalid: str
    difference: str = ""
    difference_interval: str = ""
    wins: str = ""
    losses: str = ""
    p: str = ""


@dataclass(frozen=True)
class TrainingPage:
    """The training as pictures, what it took, and what its course says of the next one's settings."""

    charts: list[Chart]
    phases: list[Phase]
    total: str | None
    memory: str | None
    step_seconds: str | None


@dataclass(frozen=True)
class RunPage:
    """What `templates/run.html.j2` shows."""

    title: str
    verdicts: list[str]
    selection: str
    command: str | None
    summary: Results
    arms_chart: IntervalChart
    arms: list[ArmLine]
    baseline: str | None
    p_heading: str
    remarks: list[str]
    training: TrainingPage
    rows: RowsData | None
    prompt: PromptTokens
    seed_text: list[str]
    facts: list[Fact]
    uses: list[Fact]
    settings: list[Fact]


def read_run_page(path: Path) -> RunPage:
    """Gather a finished run's page.

    Raises:
        UserError: a file of the run directory cannot be read, or is not what `optimize` and `evaluate` write.
    """
    results, config = Results.read(path / "results.json"), read_settings(path / "config.yaml")
    artifact = path / "prompt.safetensors"
    metadata = read_header(artifact) if artifact.exists() else None
    course = read_course(path / "metrics.jsonl")
    comparisons = _comparisons(results)
    main = comparisons[0] if comparisons else None
    short = short_names(list(results.arms))
    rendered = results.rendered or {}
    seed = rendered.get("seed")
    said = (remarks.of_arms, remarks.of_answers, remarks.of_change, remarks.of_meaning, remarks.of_skipped)
    return RunPage(
        title=f"{results.task} · {results.model}",
        verdicts=_verdicts(results, comparisons, short),
        selection=training.selection_of(results, course),
        command=provenance.command_of(metadata),
        summary=results,
        arms_chart=intervals(
            f"Accuracy on the {results.split} split with 95 % intervals",
            [(short[name], arm.accuracy, arm.ci95) for name, arm in results.arms.items()],
            short[main.candidate] if main else None,
        ),
        arms=_arm_lines(results, comparisons, short),
        baseline=short[main.baseline] if main else None,
        p_heading="p (Holm)" if len(comparisons) > 1 else "p",
        remarks=list(chain.from_iterable(of(results) for of in said)),
        training=_training(results, course),
        rows=_rows(path / "samples.jsonl", results, main),
        prompt=tokens_of(artifact, results),
        seed_text=[seed.text[start:end] for start, end in seed.slots] if seed and seed.vectors is None else [],
        facts=provenance.facts_of(results, metadata, artifact),
        uses=provenance.uses_of(path, metadata),
        settings=provenance.settings_of(config),
    )


def _comparisons(results: Results) -> list[Comparison]:
    """The one that matters most first, as in the terminal."""
    main = results.comparison
    return sorted(results.every_comparison, key=lambda one: main is not None and one.candidate != main.candidate)


def _verdicts(results: Results, comparisons: Sequence[Comparison], short: dict[str, str]) -> list[str]:
    if not comparisons:
        ((name, arm),) = list(results.arms.items())[:1]
        interval = show_interval(arm.ci95)
        return [f"{short[name]}: {arm.accuracy:.1%} (95 % interval {interval}); nothing was compared."]
    named = [replace(one, baseline=short[one.baseline], candidate=short[one.candidate]) for one in comparisons]
    said = [verdict(one, results.num_examples) for one in named]
    return [f"{one[0].upper() if one.startswith('no ') else one[0]}{one[1:]}." for one in said]


def _arm_lines(results: Results, comparisons: Sequence[Comparison], short: dict[str, str]) -> list[ArmLine]:
    compared = {one.candidate: one for one in comparisons}
    lines = []
    for name, arm in results.arms.items():
        invalid = "" if arm.invalid is None else str(arm.invalid)
        line = ArmLine(short[name], f"{arm.accuracy:.1%}", show_interval(arm.ci95), arm.correct, invalid)
        if name in compared:
            one = compared[name]
            line = replace(
                line,
                difference=f"{100 * one.difference:+.1f}",
                difference_interval=" to ".join(f"{100 * limit:+.1f}" for limit in one.ci95),
                wins=str(one.wins),
                losses=str(one.losses),
                p=show_p(one.mcnemar_p if one.holm_p is None else one.holm_p),
            )
        lines.append(line)
    return lines


def _training(results: Results, course: training.Course) -> TrainingPage:
    seconds, timing = training.seconds_per_step(course), results.timing
    return TrainingPage(
        charts=training.charts_of(course, results.validation.step if results.validation else None),
        phases=training.phases_of(timing),
        total=training.duration(timing.total) if timing else None,
        memory=training.memory_of(results),
        step_seconds=None if seconds is None else training.duration(seconds),
    )


def _rows(file: Path, results: Results, main: Comparison | None) -> RowsData | None:
    """None where nobody kept the answers."""
    if not file.exists():
        return None
    names = list(results.arms)
    baseline = main.baseline if main else choose_baseline(names, None)
    return rows_data(Sample.read_lines(file), baseline, main.candidate if main else names[-1])
