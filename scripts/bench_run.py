"""A whole experiment, from command to table: `embedgrad optimize` against PEFT, `Trainer` and `generate`.

    python scripts/bench_run.py [--repeats N] [--json FILE] task=sst2 task.data_dir=DIR prompt=sentiment \\
        model=local model.path=DIR
    python scripts/bench_run.py task=gsm8k task.data_dir=DIR model=local model.path=DIR task.split.num_train=64 \\
        task.split.num_test=48

The overrides are those of `embedgrad optimize`. Both sides run them in a process of their own, in turns: reading,
loading, training with validations, and the test of `none`, `seed` and `optimized`. What the other side does is in
`bench/peft_run.py`. Where a task scores choices, the other side generates its labels.

ratio         the other side's seconds over ours, of the same turn; the median of the turns
phases        where ours went, by the `timing` of its results; the median turn's
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.output import show
from embedgrad_cli.storage.run_records import Results

OTHER = Path(__file__).parent / "bench" / "peft_run.py"
OURS = "from embedgrad_cli.cli.main import main; main()"
COLUMNS = ["task", "model", "ratio", "seconds", "other_seconds", "optimized", "other_optimized"]


@dataclass(frozen=True)
class Turn:
    """Both sides once: seconds from the command to its end, and what came out."""

    seconds: float
    results: Results
    other_seconds: float
    other_accuracies: dict[str, float]


def take_turn(overrides: Sequence[str]) -> Turn:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        seconds, _ = timed([sys.executable, "-c", OURS, "optimize", *overrides, f"output_dir={run}"])
        results = Results.read(run / "results.json")
    other_seconds, said = timed([sys.executable, str(OTHER), *overrides])
    return Turn(seconds, results, other_seconds, json.loads(said.splitlines()[-1]))


def timed(command: Sequence[str]) -> tuple[float, str]:
    """Returns: seconds of wall-clock time, and standard output. Raises `CalledProcessError`."""
    started = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - started, done.stdout


def as_row(turns: Sequence[Turn]) -> dict[str, Any]:
    middle = sorted(turns, key=lambda turn: turn.seconds)[len(turns) // 2]
    results = middle.results
    return {
        "task": results.task,
        "model": Path(results.model).name,
        "ratio": round(statistics.median(turn.other_seconds / turn.seconds for turn in turns), 3),
        "seconds": middle.seconds,
        "other_seconds": statistics.median(turn.other_seconds for turn in turns),
        "optimized": results.arms["optimized"].accuracy,
        "other_optimized": middle.other_accuracies["optimized"],
        "phases": results.timing.phases if results.timing else None,
        "arms": {name: arm.accuracy for name, arm in results.arms.items()},
        "other_arms": middle.other_accuracies,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="+", help="of embedgrad optimize")
    parser.add_argument("--repeats", type=int, default=1, help="turns (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the row, with the phases, to this file")
    options = parser.parse_args(arguments)
    row = as_row([take_turn(options.overrides) for _ in range(options.repeats)])
    show("from the command to the table, against PEFT, Trainer and generate", [row], COLUMNS, options.json)


if __name__ == "__main__":
    main()
