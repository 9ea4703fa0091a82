"""Compares a forecast with the run that it is of: memory and time.

    python scripts/check_forecast.py model=local model.path=DIR task=sst2 task.data_dir=DIR prompt=sentiment

The words are those of `embedgrad optimize`. The forecast (`--dry-run=time`) and the run have a process each, one after
the other, and share nothing but the machine: for times that mean something it should do nothing else. One line per
figure: what was foretold, what was found, and their quotient. `--repeats N` does both N times, in turns, and prints the
medians. `--cpu-time` counts the processor's seconds in place of the clock's, for one thread on a machine that others
use.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

FORECAST = """
import dataclasses, json, sys
from embedgrad_cli.config.compose import Request, config_of
from embedgrad_cli.config.dry_run import DryRun
from embedgrad_cli.forecast.make import make_forecast
forecast = make_forecast(config_of(Request("optimize", sys.argv[1:])), DryRun(timed=True))
peaks = {name: moment.total for name, moment in forecast.moments.items()}
print(json.dumps({"memory": forecast.peak, "peaks": peaks, "total": forecast.time.total, **vars(forecast.time)}))
"""


RUN = """
import sys
from embedgrad_cli.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
CPU_TIME = "import time\ntime.perf_counter = time.process_time\n"


def foretell(words: list[str], clock: str) -> dict[str, Any]:
    """What the forecast says, by its names."""
    line = [sys.executable, "-c", clock + FORECAST, *words]
    output = subprocess.run(line, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def find(words: list[str], clock: str) -> dict[str, float]:
    """What the run takes, by the same names. Its total is that of the whole program."""
    with TemporaryDirectory() as folder:
        started = _seconds(clock)
        line = [sys.executable, "-c", clock + RUN, "optimize", *words, f"output_dir={folder}/run"]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
        total = _seconds(clock) - started
        results = json.loads(Path(folder, "run/results.json").read_text())
        lines = [json.loads(text) for text in Path(folder, "run/metrics.jsonl").read_text().splitlines()]
        steps = [line["seconds"] for line in lines if "seconds" in line]
    return {
        "memory": results["peak_memory_bytes"],
        "total": total,
        "training": sum(steps),
        "step": sum(steps) / max(len(steps), 1),
    }


def _seconds(clock: str) -> float:
    """Of the clock, or of the processor for the programs that were run."""
    used = os.times()
    return used.children_user + used.children_system if clock else time.perf_counter()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1, metavar="N")
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="as for embedgrad optimize")
    args = parser.parse_args(argv)
    words = args.words
    clock = CPU_TIME if args.cpu_time else ""
    pairs = [(foretell(words, clock), find(words, clock)) for _ in range(args.repeats)]
    print("command: embedgrad optimize " + " ".join(words))
    print("measured: " + pairs[-1][0]["measured"])
    print("| figure | foretold | found | foretold / found |\n| --- | --- | --- | --- |")
    for name, unit, size in [("memory", "GB", 1e9), ("step", "s", 1), ("training", "s", 1), ("total", "s", 1)]:
        foretold = statistics.median(pair[0][name] for pair in pairs) / size
        found = statistics.median(pair[1][name] for pair in pairs) / size
        print(f"| {name} | {foretold:.3g} {unit} | {found:.3g} {unit} | {foretold / found:.2f} |")


if __name__ == "__main__":
    main()
