"""What more processes are worth: one run of `embedgrad optimize` in one process and in several, in turns.

    python scripts/bench_parallel.py [--processes 2] [--repeats N] [--json FILE] train.steps=20 train.batch_size=8
    python scripts/bench_parallel.py task=gsm8k task.data_dir=DIR model=local model.path=DIR train.steps=12 \\
        train.batch_size=16 task.split.num_validation=32 task.split.num_test=32

The overrides are those of `embedgrad optimize`. Every process has one thread, unless OMP_NUM_THREADS says how many, so
that of N processes each has the core that one process has.

speed_up      seconds of a step of one process over those of several, of the same turn; the median of the turns. A
              step's are the median of `metrics.jsonl` without the first steps
validation, test   the same for the seconds of both phases
loss_error    largest relative difference of a step's loss
bytes         that a process hands to the step's all_reduce
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from bench.output import ratio, show
from embedgrad_cli.storage.results_record import Results

WARM_UP = 2  # steps that are not counted
COLUMNS = ["processes", "steps", "speed_up", "validation", "test", "seconds_of_one", "seconds", "loss_error", "bytes"]


@dataclass(frozen=True)
class Course:
    """One run: a step's median seconds, those of both phases, the losses, and how many numbers the vectors have."""

    step: float
    validation: float
    test: float
    losses: list[float]
    numbers: int


def run_once(processes: int, overrides: Sequence[str]) -> Course:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        line = [*overrides, f"output_dir={run}", *([f"launch.processes={processes}"] if processes > 1 else [])]
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        command = [sys.executable, "-m", "embedgrad_cli", "optimize", *line]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        steps, timing = [row for row in rows if "loss" in row], Results.read(run / "results.json").timing
        assert timing is not None
        with safe_open(run / "checkpoint.safetensors", framework="pt") as file:
            numbers = file.get_tensor("vectors").numel()
    step = statistics.median(row["seconds"] for row in steps[WARM_UP:])
    return Course(step, timing.validation, sum(timing.test.values()), [row["loss"] for row in steps], numbers)


def measure(processes: int, overrides: Sequence[str], repeats: int) -> dict[str, Any]:
    turns = [(run_once(1, overrides), run_once(processes, overrides)) for _ in range(repeats)]
    one, several = turns[0]

    def gain(phase: str) -> float | None:
        ratios = [ratio(getattr(alone, phase), getattr(shared, phase)) for alone, shared in turns]
        known = [one for one in ratios if one is not None]
        return statistics.median(known) if known else None

    return {
        "processes": processes,
        "steps": len(one.losses),
        "speed_up": gain("step"),
        "validation": gain("validation"),
        "test": gain("test"),
        "seconds_of_one": statistics.median(alone.step for alone, _ in turns),
        "seconds": statistics.median(shared.step for _, shared in turns),
        "loss_error": max(abs(a - b) / abs(a) for a, b in zip(one.losses, several.losses, strict=True)),
        "bytes": 4 * (one.numbers + 1 + 2 * processes),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="turns, of which medians are taken (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the row to this file")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_args(argv)
    row = measure(arguments.processes, arguments.overrides, arguments.repeats)
    show("One process and several", [row], COLUMNS, arguments.json)


if __name__ == "__main__":
    main()
