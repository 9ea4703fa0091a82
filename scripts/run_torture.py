"""Faults on purpose: kills, stops, full disks, little memory, numbers that are none. What is survived, as a table.

    python scripts/run_torture.py [--kinds kills stops …] [--count N] [--sample N] [--seed N] [--out DIR]
                                  [--only PATTERN]

Each fault is a case with a name, and follows from the seed: --only 'kill-optimize-at-1*' runs those alone. A case is
run in a folder of its own, which is kept where something was wrong. The exit code is 1 if anything was not survived.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"  # threads do not survive a fork
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")

from torture import disk, equal, kills, memory, numbers, stops, two_processes
from torture.cases import Bench, Case, Outcome, try_case
from torture.table import table
from torture.work import warm_up

KINDS = {module.KIND: module for module in (kills, stops, disk, memory, two_processes, numbers, equal)}


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    shutil.rmtree(args.out, ignore_errors=True)
    base = (args.out / "work").resolve()
    warm_up(base)
    bench, outcomes, started = Bench(base), list[Outcome](), time.monotonic()
    with (args.out / "cases.jsonl").open("w", encoding="utf-8") as file:
        for case in cases(bench, args):
            outcome = try_case(bench, case)
            outcomes.append(outcome)
            file.write(json.dumps(outcome.to_json(), ensure_ascii=False) + "\n")
            file.flush()
            for wrong in outcome.wrong:
                print(f"{outcome.name}: {wrong}", flush=True)
    written = table(outcomes)
    (args.out / "table.md").write_text(written, encoding="utf-8")
    print(f"{written}\n{len(outcomes)} cases in {time.monotonic() - started:.0f} s, seed {args.seed}")
    return int(any(outcome.wrong for outcome in outcomes))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument(
        "--count", type=int, default=200, help="of kills; the other kinds have their share (%(default)s)"
    )
    parser.add_argument("--sample", type=int, metavar="N", help="so many cases of each kind, drawn by the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("outputs/torture"), metavar="DIR", help="%(default)s")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="cases whose name is like this")
    return parser.parse_args(argv)


def cases(bench: Bench, args: argparse.Namespace) -> Iterator[Case]:
    for kind in args.kinds:
        found = [case for case in KINDS[kind].cases(bench, args.count, args.seed) if fnmatchcase(case.name, args.only)]
        if args.sample is not None and args.sample < len(found):
            chosen = random.Random(f"{kind} {args.seed}").sample(range(len(found)), args.sample)
            found = [found[number] for number in sorted(chosen)]
        yield from found


if __name__ == "__main__":
    sys.exit(main())
