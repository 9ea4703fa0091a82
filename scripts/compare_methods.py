"""One table: embedgrad beside PEFT's prompt tuning, LoRA, a text search and hand-written instructions.

    python scripts/compare_methods.py                                  # the embedded model and its tasks
    python scripts/compare_methods.py --model DIR --title SmolLM2-135M --task sst2 \\
        --set task.data_dir=DIR --seeds 0 1 2 --out WORK                # any model, any task
    python scripts/compare_methods.py … --list                         # what is finished, what is missing
    python scripts/compare_methods.py … --only embedgrad lora --rates lora=3e-4,1e-3 --minutes 60
    python scripts/compare_methods.py … --examples 16 64 256 1024      # learning curves
    python scripts/compare_methods.py … --folds 5                      # all folds, pooled

Every method gets the same rows, batches in the same order, steps, AdamW settings, clipping, schedule and, unless
--rates says otherwise, number of learning rates. The step of a training and the learning rate of a method are chosen
by validation accuracy, then loss; only the chosen one answers the test split, once.

A cell is one method on one task, size, seed and fold. What is finished is kept in the work folder and not done again: a
cell's folder changes with settings, rows and weights, not with places, names or the learning rates of others. Every
training and every test runs in a process of its own, one at a time, the cheapest first. A stopped training of embedgrad
and every stopped test go on where they were; PEFT's trainings begin again. `results_page.py` makes a page of it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from rich.console import Console
from rich.table import Table

from embedgrad_cli.errors import EmbedgradError, UserError
from embedgrad_cli.storage.files import write_atomically
from embedgrad_cli.storage.interrupts import signals_interrupt
from methods.cells import Cell, CellFailed, Execute, describe, in_own_process
from methods.page import at_end_note, frozen_note, size_title
from methods.problem import EMBEDDED, Problem
from methods.records import Finished, read_work
from methods.registry import METHODS, NOT_BY_DEFAULT, chosen_methods
from methods.table import HEADS, arms_of, cells_of, markdown, rows_of

TABLE_WIDTH = 160
EMBEDDED_TEST_ROWS = 500

progress = Console(stderr=True, highlight=False)


def rates(argument: str) -> tuple[str, tuple[float, ...]]:
    """`lora=3e-4,1e-3`"""
    name, _, values = argument.partition("=")
    return name, tuple(float(value) for value in values.split(","))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--model", default="tiny", metavar="NAME|PATH", help="a choice of conf/model, a folder, a GGUF file, a hub id")
    add("--title", metavar="TEXT", help="what tables call the model (default: the name, or the folder's)")
    add("--task", "--tasks", dest="tasks", nargs="+", default=list(EMBEDDED), metavar="TASK")
    add("--prompt", metavar="NAME|TEXT", help="seed prompt (default: the one that belongs to the task)")
    add("--instructions", type=Path, metavar="FILE", help="a YAML list of instructions of your own")
    add("--set", dest="overrides", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="as for optimize")
    every = [name for name in METHODS if name not in NOT_BY_DEFAULT]
    add("--only", "--methods", dest="methods", nargs="+", choices=list(METHODS), default=every, metavar="METHOD")
    add("--rates", nargs="+", type=rates, default=[], metavar="METHOD=LR,LR", help="other learning rates of a method")
    add("--search-budget", type=int, default=10_000, metavar="N", help="forward evaluations of text-search (10,000)")
    add("--examples", nargs="+", type=int, default=[64], metavar="N", help="training rows (default 64)")
    add("--steps", type=int, default=50, metavar="N", help="optimiser steps (default 50)")
    add("--batch-size", type=int, default=16, metavar="N", help="rows per step (default 16)")
    add("--test", type=int, metavar="N", help="test rows (embedded tasks: 500; others: as the task says)")
    add("--seeds", nargs="+", type=int, default=[0], metavar="N", help="default: 0 alone")
    add("--folds", type=int, metavar="N", help="cut the rows into N folds, each of which is the test set once")
    add("--out", type=Path, default=Path("outputs/compare"), metavar="DIR", help="work folder (default %(default)s)")
    add("--minutes", type=float, metavar="N", help="begin no further cell after so many minutes")
    add("--list", action="store_true", help="say which cells are finished, and run none")
    add("--markdown", type=Path, metavar="FILE", help="also write the tables as Markdown")
    return parser.parse_args(arguments)


def problems_of(args: argparse.Namespace) -> list[Problem]:
    """Seed by seed, so that a table fills with whole seeds; the smaller sizes first."""
    problems = []
    for seed in args.seeds:
        for size in sorted(args.examples):
            for task in args.tasks:
                lines = [
                    f"seed={seed}",
                    f"task.split.num_train={size}",
                    f"train.steps={args.steps}",
                    f"train.batch_size={args.batch_size}",
                ]
                test = args.test or (EMBEDDED_TEST_ROWS if task in EMBEDDED else None)
                lines += [f"task.split.num_test={test}"] if test else []
                for fold in range(args.folds or 1):
                    cut = [f"task.split.folds={args.folds}", f"task.fold={fold}"] if args.folds else []
                    problems.append(Problem.compose(task, [*lines, *cut, *args.overrides], args.model, args.prompt))
    return problems


def cells_in_order(args: argparse.Namespace) -> list[Cell]:
    """Of every seed, the cells of the cheapest method first."""
    given = chosen_methods(args.methods, dict(args.rates), args.model == "tiny", args.instructions, args.search_budget)
    problems = problems_of(args)
    return [
        Cell(problem, method, args.out)
        for seed in args.seeds
        for method in given
        for problem in problems
        if problem.config.seed == seed
    ]


def run(cells: Sequence[Cell], title: str, execute: Execute, minutes: float | None = None) -> int:
    """Run what is not finished. Returns how many cells failed."""
    started, failed = time.monotonic(), 0
    for number, cell in enumerate(cells, 1):
        if cell.finished():
            continue
        if minutes is not None and time.monotonic() - started > 60 * minutes:
            progress.print(f"{minutes:g} minutes are over; {len(cells) - number + 1} cells were not begun")
            break
        progress.print(f"[{number}/{len(cells)}] {cell.name}", markup=False, soft_wrap=True)
        try:
            describe(cell, title)
            record = cell.run(execute)
        except (CellFailed, UserError) as error:
            failed += 1
            progress.print(f"  {error}", markup=False, soft_wrap=True)
            continue
        accuracy = sum(record.correct.values()) / len(record.correct)
        progress.print(f"  {accuracy:.1%} of {len(record.correct)}, {record.seconds:.0f} s", soft_wrap=True)
    return failed


def show_cells(cells: Sequence[Cell]) -> None:
    for cell in cells:
        record, missing = cell.finished(), cell.missing()
        state = "finished" if record else f"missing: {', '.join([*missing, 'test'])}"
        print(f"{cell.name:60} {state:40} {cell.folder}")


def tables(cells: Sequence[Cell]) -> list[tuple[str, list[Finished]]]:
    """The title and the finished cells of each table, of the series and sizes that these cells belong to."""
    found: dict[str, list[Finished]] = {}
    wanted = {(cell.problem.series, len(cell.problem.splits.train)) for cell in cells}
    for one in read_work(cells[0].work):
        if (one.series_key, one.problem.counts["train"]) in wanted:
            found.setdefault(size_title(one), []).append(one)
    return list(found.items())


def show(title: str, finished: Sequence[Finished]) -> str:
    """Print a table. Returns: the same as Markdown."""
    arms, console = arms_of(finished), Console(highlight=False)
    if not arms:
        return ""
    rows = rows_of(arms, finished[0].series.kind)
    table, console.width = Table(title=title), max(console.width, TABLE_WIDTH)
    for index, name in enumerate(HEADS):
        table.add_column(name, justify="right" if index else "left")
    for row in rows:
        table.add_row(*cells_of(row))
    notes = [frozen_note(finished), *at_end_note(rows)]
    console.print(table, *notes, sep="\n", markup=False)
    return "\n\n".join([f"{title}:", markdown(rows).rstrip(), *(note.replace("*:", "\\*:") for note in notes)]) + "\n"


def main(arguments: Sequence[str]) -> int:
    args = parse(arguments)
    cells = cells_in_order(args)
    if args.list:
        show_cells(cells)
        return 0
    title = args.title or Path(args.model).stem
    with signals_interrupt():
        failed = run(cells, title, in_own_process, args.minutes)
    texts = [show(*table) for table in tables(cells)]
    if args.markdown:
        write_atomically(args.markdown, "\n".join(texts).encode())
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except EmbedgradError as problem:
        progress.print(f"compare_methods: {problem}", markup=False, soft_wrap=True)
        sys.exit(problem.exit_code)
    except KeyboardInterrupt:
        progress.print("compare_methods: stopped; the same command goes on from there")
        sys.exit(130)
