"""What a person sees: live progress on a terminal, plain lines elsewhere, and the closing table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from embedgrad_cli.arms import Outcome
from embedgrad_cli.statistics import verdict
from embedgrad_cli.tasks.data import Row

PLAIN_LINES = 10  # progress lines per run where there is no terminal
SHOWN_EXAMPLES = 3
ANSWER_LINES = 6  # of one answer, in the examples shown


def _progress_console() -> Console:
    """Progress goes to stderr, results to stdout, so that results can be piped."""
    return Console(stderr=True, highlight=False)


class TrainingDisplay:
    """A progress bar with loss, validation accuracy, drift and speed; plain lines when stderr is no terminal."""

    def __init__(self, steps: int, first_step: int, summary: str) -> None:
        self.console, self.steps, self.summary = _progress_console(), steps, summary
        self.first_step, self.accuracy, self.best = first_step, 0.0, 0.0
        self.progress = Progress(
            TextColumn("[bold]optimize[/]"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed}/{task.total} · {task.fields[numbers]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.bar: TaskID | None = None

    def __enter__(self) -> Self:
        self.console.print(self.summary, soft_wrap=True)
        if self.first_step:
            self.console.print(f"resumed after step {self.first_step}")
        self.progress.start()
        self.bar = self.progress.add_task("", total=self.steps, completed=self.first_step, numbers="")
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def step(self, row: dict[str, Any]) -> None:
        numbers = (
            f"loss {row['loss']:.3f} · validation {self.accuracy:.1%} (best {self.best:.1%}) · "
            f"drift {row['drift']:.2f} · {row['tokens'] / max(row['seconds'], 1e-9):,.0f} tokens/s"
        )
        assert self.bar is not None
        self.progress.update(self.bar, completed=row["step"], numbers=numbers)
        every = max(self.steps // PLAIN_LINES, 1)
        if not self.console.is_terminal and (row["step"] % every == 0 or row["step"] == self.steps):
            self.console.print(f"step {row['step']}/{self.steps} · {numbers}", soft_wrap=True)

    def validated(self, row: dict[str, Any]) -> None:
        self.accuracy = row["validation_accuracy"]
        self.best = max(self.best, self.accuracy)
        mark = " · best so far" if row["best"] else ""
        self.console.print(
            f"step {row['step']}: validation accuracy {self.accuracy:.1%}, loss {row['validation_loss']:.3f}{mark}",
            soft_wrap=True,
        )


class TestDisplay:
    """One progress bar per arm; one plain line per arm when stderr is no terminal."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    def __init__(self) -> None:
        self.console = _progress_console()
        self.progress = Progress(
            TextColumn("[bold]test[/] {task.description:<10}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def arm(self, name: str, total: int) -> Callable[[int], None]:
        """Begin an arm; the returned callback counts its finished rows."""
        if not self.console.is_terminal:
            self.console.print(f"test: {name}, {total} examples")
        bar = self.progress.add_task(name, total=total)
        return lambda done: self.progress.advance(bar, done)


def results(summary: dict[str, Any], rows: Sequence[Row], outcomes: dict[str, list[Outcome]], output_dir: Path) -> None:
    """Print examples with both answers, the table, the verdict, and where everything is."""
    console = Console(file=sys.stdout, highlight=False)
    _print_examples(console, rows, outcomes)
    console.print(_table(summary))
    comparison = summary["comparison"]
    console.print(f"Verdict: {verdict(comparison, summary['num_examples'])}.".replace("..", "."), soft_wrap=True)
    drift = summary["drift"]
    console.print(
        f"Drift from the seed: {drift['mean_relative_l2']:.2f} of a vector's length on average; "
        f"{drift['nearest_kept']} of {drift['num_tokens']} vectors still have their seed token as nearest neighbour.",
        soft_wrap=True,
    )
    if summary["num_skipped"]:
        console.print(f"{summary['num_skipped']} examples were too long for the model and left out of every arm.")
    console.print(f"Written to {escape(str(output_dir))}", soft_wrap=True)


def already_finished(output_dir: Path, summary: dict[str, Any]) -> None:
    """Say that nothing is left to do, and what came out."""
    console = Console(file=sys.stdout, highlight=False)
    console.print(f"The run in {escape(str(output_dir))} is finished; nothing was changed.", soft_wrap=True)
    console.print(_table(summary))


def _table(summary: dict[str, Any]) -> Table:
    comparison = summary["comparison"]
    title = f"{summary['task']} · {summary['split']} split, {summary['num_examples']} examples · {summary['model']}"
    table = Table(title=escape(title), title_justify="left")
    for name, justify in [
        ("arm", "left"),
        *((n, "right") for n in ("accuracy", "95 % interval", "invalid", "difference", "p")),
    ]:
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name, arm in summary["arms"].items():
        low, high = arm["ci95"]
        against = name == comparison["candidate"]
        difference = f"{100 * comparison['difference']:+.1f} points" if against else ""
        p = comparison["mcnemar_p"]
        shown_p = ("< 0.001" if p < 0.001 else f"{p:.3f}") if against else ""
        interval = f"{low:.1%} to {high:.1%}"
        table.add_row(name, f"{arm['accuracy']:.1%}", interval, str(arm["invalid"]), difference, shown_p)
    return table


def _print_examples(console: Console, rows: Sequence[Row], outcomes: dict[str, list[Outcome]]) -> None:
    """A few rows with the answers of seed and optimised prompt, those first on which the two differ."""
    if not {"seed", "optimized"} <= outcomes.keys():
        return
    pairs = list(zip(rows, outcomes["seed"], outcomes["optimized"], strict=True))
    pairs.sort(key=lambda pair: pair[1].correct == pair[2].correct)
    for row, seed, optimized in pairs[:SHOWN_EXAMPLES]:
        console.print(f"\n[bold]{escape(row.query)}[/]  [dim](expected: {escape(row.answer)})[/]", soft_wrap=True)
        for name, outcome in (("seed", seed), ("optimized", optimized)):
            mark = "[green]right[/]" if outcome.correct else "[red]wrong[/]"
            lines = outcome.output.strip().splitlines() or ["(no answer)"]
            shown = lines if len(lines) <= ANSWER_LINES else [*lines[: ANSWER_LINES - 2], "…", lines[-1]]
            console.print(f"  {name:<10}{mark}  {escape(shown[0])}", soft_wrap=True)
            for line in shown[1:]:
                console.print(f"{'':19}{escape(line)}", soft_wrap=True)
    console.print()
