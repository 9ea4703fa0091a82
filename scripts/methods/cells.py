"""A cell: one method on one problem. Its trainings and its test each run in a process of their own."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import torch

from embedgrad_cli.config.fields import seeds_of
from embedgrad_cli.errors import EmbedgradError
from embedgrad_cli.storage.files import write_json

from .answers import tested
from .problem import Method, Problem, model_digest
from .records import (
    CELL,
    PROBLEM,
    SERIES,
    TEST,
    TRIAL,
    VALIDATED,
    CellRecord,
    ProblemRecord,
    SeriesRecord,
    TestRecord,
    Trial,
)

SECONDS = "seconds.txt"  # a line per process that worked in the folder, stopped ones included
SHARED_ANSWERS = "answers.jsonl"
PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
LIBRARIES = ("torch", "transformers", "peft")

Execute = Callable[..., None]


class CellFailed(EmbedgradError):
    """The process of a training or of a test ended with an error, or the system killed it."""


@dataclass(frozen=True)
class Cell:
    """`work` is the folder of all series."""

    problem: Problem
    method: Method
    work: Path

    @property
    def folder(self) -> Path:
        return self.problem_folder / self.method.folder(self.problem)

    @property
    def problem_folder(self) -> Path:
        return self.work / self.problem.series / self.problem.key

    @property
    def name(self) -> str:
        return f"{self.problem.name} · {self.problem.key.rpartition('-')[0]} · {self.method.name}"

    def finished(self) -> CellRecord | None:
        """What was found, if these learning rates were all tried and the best was tested."""
        file = self.folder / CELL
        record = CellRecord.read(file) if file.exists() else None
        return record if record and sorted(record.rates) == sorted(self.method.rates) else None

    def missing(self) -> list[str]:
        """The trainings that are still to be done."""
        return [name for name in self.method.tries() if not (self.folder / name / TRIAL).exists()]

    def run(self, execute: Execute) -> CellRecord:
        """Do what is missing, one thing after the other, and write down the result.

        Raises:
            CellFailed: a training or the test failed; what was finished before is kept.
        """
        for name in self.missing():
            execute(train, self, name)
        trials = {name: Trial.read(self.folder / name / TRIAL) for name in self.method.tries()}
        chosen = choose(trials) if trials else None
        folder = self.folder / chosen if chosen else self.folder
        if not (folder / TEST).exists():
            execute(test, self, chosen)
        result = TestRecord.read(folder / TEST)
        spent = sum(seconds_in(self.folder / name) for name in [*trials, "."])
        record = CellRecord(
            method=self.method.name,
            title=self.method.title,
            variant=self.method.variant(self.problem),
            rates=list(self.method.rates),
            chosen=trials[chosen] if chosen else None,
            trials=list(trials.values()),
            correct={answer.id: answer.correct for answer in result.answers},
            seconds=spent + result.seconds_before,
            texts=result.texts,
            threads=torch.get_num_threads(),
        )
        write_json(self.folder / CELL, record)
        return record


def choose(trials: dict[str, Trial]) -> str:
    """The best in validation: more accurate, or as accurate with a smaller loss."""
    return min(trials, key=lambda name: (-trials[name].accuracy, trials[name].loss))


def train(cell: Cell, name: str) -> None:
    """One training of a cell."""
    folder = cell.folder / name
    write_json(folder / TRIAL, cell.method.train(cell.problem, cell.method.tries()[name], folder))


def test(cell: Cell, name: str | None) -> None:
    """The test of a cell, with what this training left (None: there is none)."""
    problem, folder = cell.problem, cell.folder / (name or ".")
    arm = cell.method.arm(problem, folder, problem.splits.test)
    shared = cell.work / problem.series / SHARED_ANSWERS
    log = shared if cell.method.shares_answers else folder / SHARED_ANSWERS
    record = tested(arm, problem.splits.test, problem.config, log).to_json()
    if (folder / VALIDATED).exists():
        record |= json.loads((folder / VALIDATED).read_text())
    write_json(folder / TEST, record)


def in_place(work: Callable[..., None], cell: Cell, name: str | None) -> None:
    """Do a part of a cell here."""
    with _clocked(cell.folder / (name or ".")):
        work(cell, name)


def in_own_process(work: Callable[..., None], cell: Cell, name: str | None) -> None:
    """The same in a process of its own, so that memory is that of this part alone.

    Raises:
        CellFailed: it failed.
    """
    process = get_context("spawn").Process(target=_guarded, args=(work, cell, name))
    with _clocked(cell.folder / (name or ".")):
        process.start()
        try:
            process.join()
        except BaseException:
            process.terminate()  # it stops at its next safe point
            process.join()
            raise
    if process.exitcode:
        raise CellFailed(f"{cell.name}, {name or 'test'}: its process ended with code {process.exitcode}")


@contextmanager
def _clocked(folder: Path) -> Iterator[None]:
    """Add the seconds that something took to those of its folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    try:
        yield
    finally:
        with (folder / SECONDS).open("a") as file:
            file.write(f"{time.perf_counter() - started:.3f}\n")


def _guarded(work: Callable[..., None], cell: Cell, name: str | None) -> None:
    os.setsid()  # Ctrl-C is for the parent, which passes one signal on
    with suppress(OSError, AttributeError):  # and where the parent is killed (Linux), nothing goes on behind its back
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGTERM)
    try:
        work(cell, name)
    except EmbedgradError as error:
        print(f"{cell.name}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def seconds_in(folder: Path) -> float:
    file = folder / SECONDS
    lines = file.read_text().splitlines() if file.exists() else []
    return sum(map(float, lines))


def describe(cell: Cell, title: str) -> None:
    """Write down what the series and the problem of a cell are."""
    problem, splits = cell.problem, cell.problem.splits
    cell.problem_folder.mkdir(parents=True, exist_ok=True)
    file, command = cell.problem_folder.parent / SERIES, shlex.join(["python", *sys.argv])
    series = SeriesRecord(
        model=title,
        task=problem.name,
        kind=problem.config.task.kind,
        seed_prompt=list(seeds_of(problem.config.prompt)),
        settings=problem.settings,
        model_digest=model_digest(problem.config.model),
        versions={"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        command=command,
    )
    write_json(file, series.after(SeriesRecord.read(file)) if file.exists() else series)
    counts = {name: len(splits.rows_of(name)) for name in ("train", "validation", "test")}
    fold, seed = problem.config.task.fold, problem.config.seed
    record = ProblemRecord(seed=seed, fold=fold, counts=counts, split_hash=splits.hash)
    write_json(cell.problem_folder / PROBLEM, record)
