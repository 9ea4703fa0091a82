"""What a person sees while a command works: bars with the time left on a terminal, a line a minute elsewhere.

Progress goes to stderr, results to stdout, so that results can be piped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

from rich.console import RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from embedgrad_cli.config.arm_spec import legend, short_names
from embedgrad_cli.evaluation.answer_log import Progress as RowsDone
from embedgrad_cli.guards.console import Console
from embedgrad_cli.storage.metrics_records import StepMetrics, ValidationMetrics
from embedgrad_cli.terminal.pace import Minutes, Pace

WIDEST_TIME = len("59 min 59 s left")


class TimeLeft(ProgressColumn):
    """That of the bar's `pace`, which counts down between two of its updates."""

    def render(self, task: Task) -> Text:
        return Text(str(task.fields["pace"]), style="progress.remaining")


class Bars(Progress):
    """A bar per task, with its time left, and a line of `numbers` below them. Nothing where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self.numbers = ""
        super().__init__(
            TextColumn("[bold]{task.description}[/]"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TimeLeft(Column(min_width=WIDEST_TIME, no_wrap=True)),  # so that the bars do not jump
            console=console,
            disable=console.quiet or not console.is_terminal,
            expand=True,
        )

    def stop(self) -> None:
        if not self.disable:  # rich before 14.3 writes an empty line of a disabled one
            super().stop()

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.numbers:
            yield Text(self.numbers, no_wrap=True, overflow="ellipsis")

    def begin(self, name: str, pace: Pace) -> TaskID:
        return self.add_task(escape(name), total=pace.total, completed=pace.done, pace=pace)


def _console(quiet: bool) -> Console:
    return Console(stderr=True, highlight=False, quiet=quiet)


class _Rows:
    """Rows that are answered, as a bar and as a line a minute."""

    def __init__(self, bars: Bars, name: str, total: int) -> None:
        self.bars, self.name, self.pace, self.minutes = bars, name, Pace(total), Minutes()
        self.bar = bars.begin(name, self.pace)

    def __call__(self, rows: int, is_known: bool = False) -> None:
        self.pace.update(self.pace.done + rows, known=rows if is_known else 0)
        self.bars.update(self.bar, completed=self.pace.done)
        if not self.bars.console.is_terminal and self.minutes.is_due and self.pace.done < self.pace.total:
            said = f"{self.name}: {self.pace.done}/{self.pace.total} rows · {self.pace}"
            self.bars.console.print(escape(said), soft_wrap=True)


class TrainingDisplay:
    """Bars for the steps and for a validation, with loss, validation accuracy, drift and speed below them.

    Args:
        accuracy, best: of the last and of the best validation of the run that goes on; None: there was none.
        quiet: nothing is shown.
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
        self.console, self.steps, self.summary = _console(quiet), steps, summary
        self.first_step, self.accuracy, self.best = first_step, accuracy, best
        self.bars, self.minutes = Bars(self.console), Minutes(at_once=True)
        # From the first step's end on: before it there may have been a validation, which no later step has to itself.
        self.pace = Pace(steps, first_step, starts=False)
        self.bar: TaskID | None = None
        self.validating: _Rows | None = None

    def __enter__(self) -> Self:
        self.console.print(escape(self.summary), soft_wrap=True)
        if self.best is not None:
            self.console.print(f"resumed after step {self.first_step} · best validation so far {_percent(self.best)}")
        self.bars.start()
        self.bar = self.bars.begin("optimize", self.pace)
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def step(self, row: StepMetrics) -> None:
        first = f"loss {row.loss:.3f}"
        if row.reward is not None and row.rows_used is not None:
            first = f"reward {row.reward:.3f} ({row.rows_used:.0%} of rows used)"
        numbers = (
            f"{first} · validation {_percent(self.accuracy)} (best {_percent(self.best)}) · "
            f"drift {row.drift:.2f} · {row.tokens / max(row.seconds, 1e-9):,.0f} tokens/s"
        )
        assert self.bar is not None
        self.pace.update(row.step)
        self.bars.numbers = numbers
        self.bars.update(self.bar, completed=row.step)
        if not self.console.is_terminal and (self.minutes.is_due or row.step == self.steps):
            left = f" · {self.pace}" if str(self.pace) else ""
            self.console.print(f"step {row.step}/{self.steps} · {numbers}{left}", soft_wrap=True)

    def validation(self, total: int) -> RowsDone:
        """Begin a validation; the returned callback counts its rows."""
        self.validating = _Rows(self.bars, "validation", total)
        return self.validating

    def validated(self, row: ValidationMetrics) -> None:
        if self.validating is not None:
            self.bars.remove_task(self.validating.bar)
            self.validating = None
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
    """A bar per arm; a line per arm and a line a minute when stderr is no terminal; nothing where it is `quiet`.

    Args: names: of all arms, so that long ones have short labels; what these stand for is said first.
    """

    __test__ = False  # not a test case, whatever pytest thinks of the name

    def __init__(self, names: Sequence[str], quiet: bool = False) -> None:
        self.console, self.names, self.short = _console(quiet), names, short_names(names)
        self.bars = Bars(self.console)

    def __enter__(self) -> Self:
        for line in legend(self.names):
            self.console.print(escape(line), soft_wrap=True)
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def arm(self, name: str, total: int) -> RowsDone:
        """Begin an arm; the returned callback counts its finished rows."""
        label = self.short.get(name, name)
        if not self.console.is_terminal:
            self.console.print(escape(f"test: {label}, {total} examples"), soft_wrap=True)
        return _Rows(self.bars, f"test {label}", total)


class AnsweringDisplay:
    """Answers to training rows: a line as a round of them begins, one a minute, and one at its end.

    Lines, not a bar: they scroll by above the bar of the training, which such a round interrupts.
    """

    def __init__(self, title: str, total: int, done: int = 0, quiet: bool = False) -> None:
        self.console, self.title, self.pace, self.minutes = _console(quiet), title, Pace(total, done), Minutes()
        self.console.print(f"{title}: answers to {total} training rows{f', {done} of them known' * bool(done)}")

    def advance(self, rows: int) -> None:
        self.pace.update(self.pace.done + rows)
        if self.pace.done < self.pace.total and self.minutes.is_due:
            self.console.print(f"{self.title}: {self.pace.done}/{self.pace.total} rows answered · {self.pace}")

    def end(self, summary: str) -> None:
        self.console.print(summary, soft_wrap=True)
