"""A whole experiment, from command to table: `embedgrad optimize` against PEFT, `Trainer` and `generate`.

    python scripts/bench_run.py [--repeats N] [--json FILE] task=sst2 task.data_dir=DIR prompt=sentiment \\
        model=local model.path=DIR
    python scripts/bench_run.py task=gsm8k task.data_dir=DIR model=local model.path=DIR task.split.num_train=64 \\
        task.split.num_validation=16 task.split.num_test=48 train.steps=16 train.batch_size=8 train.eval_every=16

The overrides are those of `embedgrad optimize`. Both sides run them in a process of their own, in turns: reading,
loading, training with validations, and the test of `none`, `seed` and `optimized`. What the other side does is in
`bench/peft_run.py`. Where a task scores choices, the other side generates its labels.

ratio         the other side's seconds over ours, of the same turn; the median of the turns
cpu_seconds   of the process, user and system: what a processor that others use too does not change so much
peak_mb       resident memory at the peak, weights and libraries included
phases        where the seconds of the median turn went; `rest` is starting Python, imports and writing
"""

from __future__ import annotations

import argparse
import json
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.output import show
from embedgrad_cli.errors import EmbedgradError, UserError
from embedgrad_cli.storage.files import write_atomically
from embedgrad_cli.storage.record import Record
from embedgrad_cli.storage.results_record import Results

OTHER = Path(__file__).parent / "bench" / "peft_run.py"
OURS = "import sys; from embedgrad_cli.cli.main import main; sys.exit(main())"
COLUMNS = ["what", "embedgrad", "PEFT"]
ARMS = ("none", "seed", "optimized")


@dataclass(frozen=True, kw_only=True)
class Other(Record):
    """What `bench/peft_run.py` says: accuracy by arm, seconds by phase, bytes."""

    arms: dict[str, float]
    phases: dict[str, float]
    peak_bytes: int | None


@dataclass(frozen=True)
class Timed:
    """A process from its start to its end, and what it printed."""

    seconds: float
    cpu_seconds: float
    output: str


@dataclass(frozen=True)
class Turn:
    """Both sides once."""

    ours: Timed
    results: Results
    theirs: Timed
    other: Other

    @property
    def ratio(self) -> float:
        return self.theirs.seconds / self.ours.seconds

    @property
    def cpu_ratio(self) -> float:
        return self.theirs.cpu_seconds / self.ours.cpu_seconds


def take_turn(overrides: Sequence[str]) -> Turn:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        ours = timed([sys.executable, "-c", OURS, "optimize", *overrides, f"output_dir={run}"])
        results = Results.read(run / "results.json")
    theirs = timed([sys.executable, str(OTHER), *overrides])
    return Turn(ours, results, theirs, Other.parse(theirs.output.splitlines()[-1], OTHER.name))


def timed(command: Sequence[str]) -> Timed:
    """Run a command.

    Raises:
        UserError: it failed, and has said why on standard error.
    """
    started, before = time.perf_counter(), _cpu_seconds()
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise UserError(f"a side ended with exit code {done.returncode}: {shlex.join(command)}")
    return Timed(round(seconds, 3), round(_cpu_seconds() - before, 3), done.stdout)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def as_row(turns: Sequence[Turn]) -> dict[str, Any]:
    """All that is known of the median turn, and the ratio of all."""
    middle = sorted(turns, key=lambda turn: turn.ours.seconds)[len(turns) // 2]
    results, other = middle.results, middle.other
    return {
        "task": results.task,
        "model": Path(results.model).name,
        "dtype": results.digests and results.digests.dtype,
        "rows": results.data and results.data.counts,
        "steps": results.steps,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "ratio": round(statistics.median(turn.ratio for turn in turns), 3),
        "cpu_ratio": round(statistics.median(turn.cpu_ratio for turn in turns), 3),
        "ratios": [round(turn.ratio, 3) for turn in turns],
        "seconds": middle.ours.seconds,
        "other_seconds": middle.theirs.seconds,
        "cpu_seconds": middle.ours.cpu_seconds,
        "other_cpu_seconds": middle.theirs.cpu_seconds,
        "peak_mb": _megabytes(results.peak_memory_bytes),
        "other_peak_mb": _megabytes(other.peak_bytes),
        "phases": _with_rest(results.timing.phases if results.timing else {}, middle.ours.seconds),
        "other_phases": _with_rest(other.phases, middle.theirs.seconds),
        "arms": {name: arm.accuracy for name, arm in results.arms.items()},
        "other_arms": other.arms,
    }


def _megabytes(size: int | None) -> int | None:
    return round(size / 1e6) if size else None


def _with_rest(phases: dict[str, float], seconds: float) -> dict[str, float]:
    return {**phases, "rest": round(seconds - sum(phases.values()), 3)}


def lines_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Both sides under each other: the whole, its phases, memory, and the accuracy of each arm."""
    values = {name: (row[name], row[f"other_{name}"]) for name in ("seconds", "cpu_seconds")}
    values |= {f"· {name}": (spent, row["other_phases"].get(name)) for name, spent in row["phases"].items()}
    values |= {"peak_mb": (row["peak_mb"], row["other_peak_mb"])}
    values |= {f"{name}, accuracy": (row["arms"][name], row["other_arms"][name]) for name in ARMS}
    return [dict(zip(COLUMNS, (name, *pair), strict=True)) for name, pair in values.items()]


def title_of(row: dict[str, Any]) -> str:
    rows = ", ".join(f"{count} {name}" for name, count in (row["rows"] or {}).items())
    return (
        f"{row['task']}, {row['model']} in {row['dtype']}; {rows}; {row['steps']} steps; threads: {row['threads']}\n"
        f"From the command to the table PEFT, Trainer and generate take {row['ratio']:.2f} times as long as embedgrad, "
        f"and {row['cpu_ratio']:.2f} times the processor's time."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="+", help="of embedgrad optimize")
    parser.add_argument("--repeats", type=int, default=1, help="turns (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the row, with the phases, to this file")
    options = parser.parse_args(arguments)
    row = as_row([take_turn(options.overrides) for _ in range(options.repeats)])
    print(title_of(row))
    show("", lines_of(row), COLUMNS, None)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(options.json, (json.dumps([row], indent=2) + "\n").encode())


if __name__ == "__main__":
    try:
        main()
    except EmbedgradError as problem:
        print(f"bench_run: {problem}", file=sys.stderr)
        sys.exit(problem.exit_code)
