"""Thousands of broken and hostile inputs: artifacts, command lines, YAML files, data, chat templates, run folders.

    python scripts/fuzz_inputs.py [--only KIND …] [--tries N] [--seed N] [--out FILE]

Each is used by a command, in this process. Whatever it is, the exit code is 0, or 2 with a paragraph that names the
file or the setting; nothing is a traceback, commands the terminal, hangs, takes gigabytes, or writes over what was
there. The exit code is 1 if anything is else: it is shown in its smallest form, and `--only KIND --seed N --tries 100`,
with the seed of its round, finds it again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from fuzz import artifacts, chat_templates, runs, tables
from fuzz import settings as own_settings
from fuzz.case import Case, try_case

# As many as `make fuzz` tries.
KINDS: dict[str, int] = {
    "artifacts": 2000, "lines": 2000, "trees": 2000, "tables": 2000, "chat-templates": 300, "runs": 300,
}  # fmt: skip
ROUND = 100  # tries with one seed: the search for a fault ends at the first one


@dataclass
class Tally:
    """What came of the tries of one kind."""

    kind: str
    seed: int
    tried: int = 0
    codes: dict[str, int] = field(default_factory=dict)
    slowest: float = 0.0
    seconds: float = 0.0
    peak_memory_mib: int = 0
    faults: list[dict[str, object]] = field(default_factory=list)


class Fault(AssertionError):
    """A case for which something does not hold."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--tries", type=int, help="of each kind, instead of what `make fuzz` tries")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the results there, as JSON")
    args = parser.parse_args(argv)
    tallies = []
    with tempfile.TemporaryDirectory() as folder:
        base = runs.make_base(Path(folder)) if {"artifacts", "runs"} & set(args.only) else None
        for kind in args.only:
            tallies.append(fuzz(kind, strategy(kind, base), args.tries or KINDS[kind], args.seed))
            print(line(tallies[-1]), flush=True)
            if args.out:
                args.out.parent.mkdir(parents=True, exist_ok=True)
                args.out.write_text(json.dumps([asdict(tally) for tally in tallies], indent=2) + "\n", encoding="utf-8")
    return int(any(tally.faults for tally in tallies))


def strategy(kind: str, base: Path | None) -> SearchStrategy[Case]:
    """What draws the cases of a kind. `base`: what `runs.make_base` made, for those that begin with a run."""
    makers: dict[str, Callable[[], SearchStrategy[Case]]] = {
        "artifacts": lambda: artifacts.cases(_there(base) / "run"),
        "lines": own_settings.lines,
        "trees": own_settings.trees,
        "tables": tables.cases,
        "chat-templates": chat_templates.cases,
        "runs": lambda: runs.cases(_there(base)),
    }
    return makers[kind]()


def fuzz(kind: str, cases: SearchStrategy[Case], tries: int, first_seed: int, shrink: bool = True) -> Tally:
    """Try so many cases, in rounds that each end at their first fault."""
    tally, codes = Tally(kind, first_seed), Counter[str]()
    started, number = time.process_time(), first_seed
    while tally.tried < tries:
        _round(tally, codes, cases, min(ROUND, tries - tally.tried), number, shrink)
        number += 1
    tally.codes, tally.seconds = dict(sorted(codes.items())), round(time.process_time() - started, 1)
    tally.peak_memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return tally


def _round(
    tally: Tally, codes: Counter[str], cases: SearchStrategy[Case], tries: int, number: int, shrink: bool
) -> None:
    smallest: list[tuple[Case, str]] = []

    @settings(
        max_examples=tries,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, *[Phase.shrink] * shrink],
        report_multiple_bugs=False,
    )
    @seed(number)
    @given(cases)
    def attempt(case: Case) -> None:
        with tempfile.TemporaryDirectory() as folder:
            outcome = try_case(case, Path(folder))
        if not smallest:  # what follows makes a fault smaller
            tally.tried += 1
            codes[str(outcome.code)] += 1
            tally.slowest = max(tally.slowest, round(outcome.seconds, 2))
        if outcome.fault:
            smallest.append((case, outcome.fault))
            raise Fault(outcome.fault.partition(":")[0])

    try:
        attempt()
    except Fault:
        case, fault = smallest[-1]
        tally.faults.append({"seed": number, "fault": fault[:2000], "case": repr(case)[:4000]})
        print(f"{tally.kind}, seed {number}: {fault[:700]}\n  {repr(case)[:1500]}", flush=True)


def line(tally: Tally) -> str:
    """One kind in a sentence."""
    codes = ", ".join(f"{count} with exit code {code}" for code, count in tally.codes.items())
    return (
        f"{tally.kind}: {tally.tried} tried, {codes}; {len(tally.faults)} faults; the slowest {tally.slowest:g} s, "
        f"{tally.seconds:g} s in all, {tally.peak_memory_mib} MiB at most"
    )


def _there(base: Path | None) -> Path:
    if base is None:
        raise ValueError("a run is needed")
    return base


if __name__ == "__main__":
    sys.exit(main())
