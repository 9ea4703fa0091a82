"""How a forecast is printed."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from embedgrad_cli.forecast.figures import Forecast, TimeFigures, WorkFigures
from embedgrad_cli.guards.console import for_results
from embedgrad_cli.terminal.report import NARROWEST

GIGA = 1e9


def print_forecast(forecast: Forecast) -> None:
    """Print what a run would take, whether it fits, and what to change where it does not."""
    console = for_results(NARROWEST)
    console.print(Text(_headline(forecast)), soft_wrap=True)
    console.print(_work_table(forecast))
    if forecast.generates:
        console.print(
            f"Answers are counted as if each had all {forecast.max_new_tokens:,} tokens that it may have.",
            soft_wrap=True,
        )
    if forecast.training_answers:
        console.print(
            f"Not counted: the {forecast.training_answers:,} answers to training rows that targets are made of. Steps "
            "are counted with the targets that the data has.",
            soft_wrap=True,
        )
    console.print(_memory_table(forecast))
    console.print(Text(fit_words(forecast)), soft_wrap=True)
    for line in _time_lines(forecast):
        console.print(Text(line), soft_wrap=True)


def _headline(forecast: Forecast) -> str:
    model, (train, validation, test) = forecast.model, forecast.num_rows
    return (
        f"{forecast.task} on {model.path} · {model.parameters / 1e6:,.0f} M parameters, {model.dtype}, on "
        f"{forecast.device.name} · {train} training, {validation} validation, {test} test examples · "
        f"{forecast.prompt_tokens} prompt tokens · {forecast.steps} steps"
    )


def _work_table(forecast: Forecast) -> Table:
    table = Table("", "times", "rows", "trunk", "branch", "target", "10^9 operations", title="Tokens and operations")
    for column in table.columns[1:]:
        column.justify = "right"
    rows = [
        ("step", forecast.steps, forecast.step),
        ("validation", forecast.validations, forecast.validation),
        ("test, all arms", 1, forecast.test),
    ]
    for name, times, work in rows:
        if work is not None:
            table.add_row(name, str(times), *_work_cells(work))
    return table


def _work_cells(work: WorkFigures) -> list[str]:
    counts = [f"{count:,}" for count in (work.rows, work.trunk, work.branch, work.target)]
    return [*counts, f"{work.operations / GIGA:,.3g}" if work.operations < 1e12 else f"{work.operations / GIGA:,.0f}"]


def _memory_table(forecast: Forecast) -> Table:
    names = dict.fromkeys(part for moment in forecast.moments.values() for part in moment.parts)
    table = Table("GB", *forecast.moments, title="Memory at the peak of each stage")
    for column in table.columns[1:]:
        column.justify = "right"
    for name in names:
        sizes = [moment.parts.get(name, 0) for moment in forecast.moments.values()]
        if any(sizes):
            table.add_row(name, *(f"{size / GIGA:.3f}" if size else "" for size in sizes))
    table.add_section()
    table.add_row("in all", *(f"{moment.total / GIGA:.3f}" for moment in forecast.moments.values()))
    return table


def fit_words(forecast: Forecast) -> str:
    """Whether it fits, and what to change where it does not."""
    device, peak = forecast.device, f"{forecast.peak / GIGA:.1f} GB"
    if device.memory is None:
        return f"The peak is {peak}; how much {device.name} has free is not known: --memory GB says it."
    has = f"{device.memory / GIGA:.1f} GB {'were given' if device.is_given else 'are free'}"
    if forecast.fits:
        return f"It fits: {peak} at the peak, {has}."
    if forecast.changes is None or not forecast.changes.settings:
        return f"It does not fit: {peak} at the peak, {has}. It takes a smaller model or another device."
    settings, then = " ".join(forecast.changes.settings), f"{forecast.changes.peak / GIGA:.1f} GB"
    if forecast.changes.enough:
        return f"It does not fit: {peak} at the peak, {has}. With {settings} it takes {then}."
    return (
        f"It does not fit: {peak} at the peak, {has}. Even with {settings} it takes {then}: it takes a smaller model, "
        "shorter rows or another device."
    )


def _time_lines(forecast: Forecast) -> list[str]:
    time = forecast.time
    if time is None:
        return []
    parts = [("training", time.training), ("validation", time.validation), ("test", time.test)]
    if time.start:
        parts.insert(0, ("start", time.start))
    split = ", ".join(f"{name} {rough_duration(seconds)}" for name, seconds in parts)
    return [f"It takes about {rough_duration(time.total)}: {split}.", _source(time, forecast.generates)]


def _source(time: TimeFigures, generates: bool) -> str:
    if time.measured:
        return f"Measured: {time.measured}."
    words = "Nothing was measured: this is operations over the rate that was given."
    return words + " Answers that are generated take longer, because they wait for memory." * generates


def rough_duration(seconds: float) -> str:
    """In the one unit that a person would choose, as for something foreseen; what was measured is told by `pace`."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 6000 else f"{seconds / 3600:.3g} h"
