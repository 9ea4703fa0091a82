"""What a person sees in the end: examples, tables, verdicts, and where everything is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from embedgrad_cli.config.arm_spec import short_names
from embedgrad_cli.evaluation.outcomes import Outcome
from embedgrad_cli.evaluation.significance import show_interval, show_p, verdict
from embedgrad_cli.guards.console import Console, fits, for_results
from embedgrad_cli.guards.typed_settings import typed
from embedgrad_cli.storage.arm_records import Breakdown, Comparison, SamplesSummary
from embedgrad_cli.storage.results_record import Results, Timing
from embedgrad_cli.tasks.load import Row
from embedgrad_cli.terminal import remarks
from embedgrad_cli.terminal.pace import duration

SHOWN_EXAMPLES = 3
SHOWN_VALUES = 40  # of a field, in a breakdown
ANSWER_LINES = 6  # of one answer, in the examples shown
NARROWEST = 130  # columns, where there is no terminal


def results(
    summary: Results,
    rows: Sequence[Row],
    outcomes: Mapping[str, Sequence[Sequence[Outcome]]],
    output_dir: Path,
) -> None:
    """Print examples with both answers, the tables, the verdicts, and where everything is."""
    console = for_results(NARROWEST)
    _print_examples(console, rows, outcomes)
    _print_tables(console, summary)
    _print_verdicts(console, summary)
    _say(console, remarks.of_change(summary), remarks.of_meaning(summary), remarks.of_skipped(summary))
    if summary.timing:
        console.print(f"{took(summary.timing)}.", soft_wrap=True)
    console.print(f"Written to {escape(str(output_dir))}", soft_wrap=True)


def took(timing: Timing) -> str:
    """ "2 min 3 s: reading 4 s, …": the whole, and the phases that took a hundredth of it or more."""
    phases = {name: value for name, value in timing.phases.items() if value >= 0.01 * timing.total}
    return f"{duration(timing.total)}: {', '.join(f'{name} {duration(value)}' for name, value in phases.items())}"


def already_finished(output_dir: Path, summary: Results) -> None:
    """Say that nothing is left to do, and what came out."""
    console = for_results(NARROWEST)
    console.print(f"The run in {escape(str(output_dir))} is finished; nothing was changed.", soft_wrap=True)
    _print_tables(console, summary)
    _print_verdicts(console, summary)
    _say(console, remarks.of_change(summary), remarks.of_meaning(summary), remarks.of_skipped(summary))


def answered(output_dir: Path) -> None:
    """Say that all answers are written and not graded."""
    folder = escape(str(output_dir))
    for_results(NARROWEST).print(
        f"Every arm has answered every example; nothing is graded. Written to {folder}/samples.jsonl\n"
        f"Grade them: embedgrad evaluate --regrade {escape(typed('output_dir', output_dir))}",
        soft_wrap=True,
    )


def _print_tables(console: Console, summary: Results) -> None:
    for table in _fitting(console, _arms_table(summary), partial(_narrow_tables, summary)):
        console.print(table)
    _say(console, remarks.of_arms(summary))
    samples = {name: arm.samples for name, arm in summary.arms.items() if arm.samples}
    if samples:
        console.print(_samples_table(samples))
    for field, values in (summary.breakdowns or {}).items():
        tables = _fitting(console, _breakdown_table(field, values), partial(_narrow_breakdown, field, values))
        for table in tables:
            console.print(table)
    _say(console, remarks.of_answers(summary))


def _print_verdicts(console: Console, summary: Results) -> None:
    """A sentence per comparison, that of `comparison` first."""
    main = summary.comparison.candidate if summary.comparison else None
    ordered = sorted(summary.every_comparison, key=lambda comparison: comparison.candidate != main)
    short = short_names(list(summary.arms))
    for number, comparison in enumerate(ordered):
        start = "Verdict: " if number == 0 else "         "
        named = replace(comparison, baseline=short[comparison.baseline], candidate=short[comparison.candidate])
        console.print(Text(f"{start}{verdict(named, summary.num_examples)}."), soft_wrap=True)


def _fitting(console: Console, wide: Table, narrow: Callable[[], list[Table]]) -> list[Table]:
    """The wide table where the console has room for it, or else the narrow ones: no cell is broken into pieces."""
    return [wide] if fits(console, wide) else narrow()


def _say(console: Console, *sentences: Iterable[str]) -> None:
    for sentence in chain.from_iterable(sentences):
        console.print(Text(sentence), soft_wrap=True)


def _table(title: str, left: str, *right: str) -> Table:
    """A table whose first column is text and whose others are numbers."""
    table = Table(title=escape(title), title_justify="left")
    table.add_column(left, overflow="fold")
    for heading in right:
        table.add_column(Text(heading), justify="right")
    return table


def _arms_table(summary: Results) -> Table:
    """One line per arm. Columns that say nothing here are left out: Holm's p of one comparison, equal extractions, …"""
    comparisons, short = summary.every_comparison, short_names(list(summary.arms))
    several = len(comparisons) > 1
    headings = _arm_headings(summary)
    if comparisons:
        headings += [f"against {short[comparisons[0].baseline]}", "95 % interval", "wins", "losses", "p"]
        headings += ["p (Holm)"] if several else []
    table = _table(_title(summary), "arm", *headings)
    for name in summary.arms:
        compared = [_compared(one, several, " points") for one in comparisons if one.candidate == name]
        table.add_row(Text(short[name]), *_arm_cells(summary, name), *chain.from_iterable(compared))
    return table


def _narrow_tables(summary: Results) -> list[Table]:
    """The same in two tables: what each arm achieved, and its difference from the baseline."""
    comparisons, short = summary.every_comparison, short_names(list(summary.arms))
    arms = _table(_title(summary), "arm", *_arm_headings(summary))
    for name in summary.arms:
        arms.add_row(Text(short[name]), *_arm_cells(summary, name))
    if not comparisons:
        return [arms]
    several = len(comparisons) > 1
    headings = ("points", "95 % interval", "wins", "losses", "p", *(["p (Holm)"] if several else []))
    table = _table(f"against {short[comparisons[0].baseline]}", "arm", *headings)
    for one in comparisons:
        table.add_row(Text(short[one.candidate]), *_compared(one, several))
    return [arms, table]


def _title(summary: Results) -> str:
    return f"{summary.task} · {summary.split} split, {summary.num_examples} examples · {summary.model}"


def _arm_headings(summary: Results) -> list[str]:
    differ, given_up = _shows(summary)
    headings = ["accuracy", "95 % interval", *(["strict", "lenient"] if differ else []), "invalid"]
    return headings + (["undecided"] if given_up else [])


def _arm_cells(summary: Results, name: str) -> list[str]:
    arm, (differ, given_up) = summary.arms[name], _shows(summary)
    cells = [f"{arm.accuracy:.1%}", show_interval(arm.ci95)]
    if differ:
        cells += [f"{found.accuracy:.1%}" if found else "" for found in (arm.strict, arm.lenient)]
    cells += ["" if arm.invalid is None else str(arm.invalid)]
    return cells + ([str(arm.undecided or 0)] if given_up else [])


def _shows(summary: Results) -> tuple[bool, bool]:
    """Whether the two extractions differ, and whether some answers could not be compared."""
    arms = summary.arms.values()
    return any(arm.strict != arm.lenient for arm in arms), any(arm.undecided for arm in arms)


def _compared(comparison: Comparison, several: bool, unit: str = "") -> list[str]:
    """Difference, interval, rows mended and broken, p and, of several comparisons, Holm's p."""
    low, high = (100 * limit for limit in comparison.ci95)
    cells = [f"{100 * comparison.difference:+.1f}{unit}", f"{low:+.1f} to {high:+.1f}"]
    cells += [str(comparison.wins), str(comparison.losses), show_p(comparison.mcnemar_p)]
    return [*cells, show_p(comparison.holm_p)] if several and comparison.holm_p is not None else cells


def _samples_table(arms: Mapping[str, SamplesSummary]) -> Table:
    """Several answers to each question: mean accuracy with clustered errors, majority vote, pass@k."""
    first = next(iter(arms.values()))
    sizes = list(first.pass_at_k)
    title = f"{first.num_samples} answers to each question; errors clustered by question"
    headings = ("mean accuracy", "standard error", "95 % interval", "majority vote", *(f"pass@{k}" for k in sizes))
    table = _table(title, "arm", *headings)
    short = short_names(list(arms))
    for name, arm in arms.items():
        error = "–" if arm.standard_error is None else f"{arm.standard_error:.1%}"
        cells = [f"{arm.mean_accuracy:.1%}", error, show_interval(arm.ci95)]
        cells += [f"{arm.majority_vote:.1%}", *(f"{arm.pass_at_k[k]:.1%}" for k in sizes)]
        table.add_row(Text(short[name]), *cells)
    return table


def _breakdown_table(field: str, values: Mapping[str, Breakdown]) -> Table:
    names = short_names(list(next(iter(values.values())).arms)).values()
    table = _table(f"by {field}", field, "examples", *names)
    for value, part in list(values.items())[:SHOWN_VALUES]:
        shown = [f"{arm.accuracy:.1%} ({show_interval(arm.ci95)})" for arm in part.arms.values()]
        table.add_row(Text(value or "(none)"), str(part.num_examples), *shown)
    return _with_rest(table, values)


def _narrow_breakdown(field: str, values: Mapping[str, Breakdown]) -> list[Table]:
    """The same with a line per value and arm."""
    short = short_names(list(next(iter(values.values())).arms))
    table = _table(f"by {field}", field, "examples")
    for heading in ("arm", "accuracy", "95 % interval"):
        table.add_column(heading, justify="left" if heading == "arm" else "right")
    for value, part in list(values.items())[:SHOWN_VALUES]:
        for number, (name, arm) in enumerate(part.arms.items()):
            first = (Text(value or "(none)"), str(part.num_examples)) if number == 0 else ("", "")
            table.add_row(*first, Text(short[name]), f"{arm.accuracy:.1%}", show_interval(arm.ci95))
        table.add_section()
    return [_with_rest(table, values)]


def _with_rest(table: Table, values: Mapping[str, Breakdown]) -> Table:
    if len(values) > SHOWN_VALUES:
        table.caption = f"and {len(values) - SHOWN_VALUES} more in results.json"
    return table


def _print_examples(console: Console, rows: Sequence[Row], outcomes: Mapping[str, Sequence[Sequence[Outcome]]]) -> None:
    """A few rows with the answers of seed and optimised prompt, those first on which the two differ."""
    if not {"seed", "optimized"} <= outcomes.keys():
        return
    firsts = ([of_row[0] for of_row in outcomes[name]] for name in ("seed", "optimized"))
    triples = list(zip(rows, *firsts, strict=True))
    triples.sort(key=lambda triple: triple[1].correct == triple[2].correct)
    for row, seed, optimized in triples[:SHOWN_EXAMPLES]:
        console.print(f"\n[bold]{escape(row.query)}[/]  [dim](expected: {escape(row.answer)})[/]", soft_wrap=True)
        for name, outcome in (("seed", seed), ("optimized", optimized)):
            mark = "[green]right[/]" if outcome.correct else "[red]wrong[/]"
            lines = outcome.output.strip().splitlines() or ["(no answer)"]
            shown = lines if len(lines) <= ANSWER_LINES else [*lines[: ANSWER_LINES - 2], "…", lines[-1]]
            console.print(f"  {name:<10}{mark}  {escape(shown[0])}", soft_wrap=True)
            for line in shown[1:]:
                console.print(f"{'':19}{escape(line)}", soft_wrap=True)
    console.print()
