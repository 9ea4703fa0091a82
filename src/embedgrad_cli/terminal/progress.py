"""What a person sees while a command works: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from embedgrad_cli.config.arm_spec import short_names
from embedgrad_cli.storage.run_records import StepMetrics, ValidationMetrics

PLAIN_LINES = 10  # progress lines per run where there is no terminal


def _progress_console(quiet: bool) -> Console:
    """Progress goes to stderr, results to stdout, so that results can be piped."""
    return Console(stderr=True, highlight=False, quiet=quiet)


class TrainingDisplay:
    """A progress bar with loss, validation accuracy, drift and speed; plain lines when stderr is no terminal.

    Args:
        accuracy, best: of the last and of the best validation of the run that goes on; None: there was none.
        quiet: nothing is shown; another process shows it.
    """

    def __init__(
        self,
        steps: int,
        first_step: int,
        summary: str,
        accuracy: float | None = None,
        best: float | None = None,
        quiet: bool = False,
    ) -> None:
        self.console, self.steps, self.summary = _progress_console(quiet), steps, summary
        self.first_step, self.accuracy, self.best = first_step, accuracy, best
        self.progress = Progress(
            TextColumn("[bold]optimize[/]"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed}/{task.total} · {task.fields[numbers]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=self.console.quiet or not self.console.is_terminal,
        )
        self.bar: TaskID | None = None

    def __enter__(self) -> Self:
        self.console.print(self.summary, soft_wrap=True)
        if self.best is not None:
            self.console.print(f"resumed after step {self.first_step} · best validation so far {_percent(self.best)}")
        self.progress.start()
        self.bar = self.progress.add_task("", total=self.steps, completed=self.first_step, numbers="")
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def step(self, row: StepMetrics) -> None:
        first = f"loss {row.loss:.3f}"
        if row.reward is not None and row.rows_used is not None:
            first = f"reward {row.reward:.3f} ({row.rows_used:.0%} of rows used)"
        numbers = (
            f"{first} · validation {_percent(self.accuracy)} (best {_percent(self.best)}) · "
            f"drift {row.drift:.2f} · {row.tokens / max(row.seconds, 1e-9):,.0f} tokens/s"
        )
        assert self.bar is not None
        self.progress.update(self.bar, completed=row.step, numbers=numbers)
        every = max(self.steps // PLAIN_LINES, 1)
        if not self.console.is_terminal and (row.step % every == 0 or row.step == self.steps):
            self.console.print(f"step {row.step}/{self.steps} · {numbers}", soft_wrap=True)

    def validated(self, row: ValidationMetrics) -> None:
        self.accuracy = row.validation_accuracy
        self.best = max(self.best or 0.0, self.accuracy)
        mark = " · best so far" if row.best else ""
        self.console.print(
            f"step {row.step}: validation accuracy {self.accuracy:.1%}, loss {row.validation_loss:.3f}{mark}",
            soft_wrap=True,
        )


def _percent(accuracy: float | None) -> str:
    return "–" if accuracy is None else f"{accuracy:.1%}"


class TestDisplay:
    """One progress bar per arm; one plain line per arm when stderr is no terminal; nothing where it is `quiet`."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    def __init__(self, quiet: bool = False) -> None:
        self.console = _progress_console(quiet)
        self.progress = Progress(
            TextColumn("[bold]test[/] {task.description:<10}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=self.console.quiet or not self.console.is_terminal,
        )

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def arm(self, name: str, total: int) -> Callable[[int], None]:
        """Begin an arm; the returned callback counts its finished rows."""
        name = short_names([name])[name]
        if not self.console.is_terminal:
            self.console.print(f"test: {escape(name)}, {total} examples", soft_wrap=True)
        bar = self.progress.add_task(escape(name), total=total)
        return lambda done: self.progress.advance(bar, done)


class AnsweringDisplay:
    """Answers to training rows: a line as a round of them begins, some while it goes on, and one at its end.

    Lines, not a bar: they scroll by above the bar of the training, which such a round interrupts.
    """

    def __init__(self, title: str, total: int, done: int = 0, quiet: bool = False) -> None:
        self.console, self.title, self.total, self.done = _progress_console(quiet), title, total, done
        self.shown = done
        self.console.print(f"{title}: answers to {total} training rows{f', {done} of them known' * bool(done)}")

    def advance(self, rows: int) -> None:
        self.done += rows
        if self.done < self.total and self.done - self.shown >= self.total / PLAIN_LINES:
            self.shown = self.done
            self.console.print(f"{self.title}: {self.done}/{self.total} rows answered")

    def end(self, summary: str) -> None:
        self.console.print(summary, soft_wrap=True)
