"""Seconds and verdicts of one evaluation in process, by `engine=vllm`, and by servers.

    python scripts/time_engines.py --serving-python .venv-serving/bin/python [--rows 500] [--out outputs/engines]
    python scripts/time_engines.py --serving-python .venv-serving/bin/python --rows 100 task=gsm8k task.data_dir=DIR \\
        task.stop=[] model=local model.path=DIR model.dtype=float32 train.steps=4

A prompt is optimised, by default on the embedded model and `word-problems`; more words are overrides of that run. Then
`none`, `seed` and `optimized` answer so many test rows by each route, one after the other, all in the environment of
`--serving-python`. A server of the model as it is answers for the texts, one of the exported folder (`format=model`)
for `optimized`. Each difference from the answers of this process is printed with the gap between the two tokens'
logits. Writes DIR/time_engines.json; ends with 1 if a difference is not a tie.

`answering` are the seconds of the answers alone, `in all` those of every process of the route, vLLM's start included.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from embedgrad_cli import assets
from embedgrad_cli.storage.files import write_json
from serve_check import call, export
from serving.compare import Comparison, Reference, compare
from serving.graded import EAGER, answers_in, elsewhere
from serving.reference import reference_of
from serving.server import vllm_server

ARMS = ("none", "seed", "optimized")
console = Console(highlight=False, soft_wrap=True)
console.width = max(console.width, 120)


@dataclass(frozen=True)
class Route:
    """What came of one route. `answering` and `in_all` are seconds."""

    name: str
    answering: float
    in_all: float
    comparisons: list[Comparison]


def main(given: Sequence[str] | None = None) -> int:
    args = arguments(given)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leave by way of the servers' clean-up
    shutil.rmtree(args.out, ignore_errors=True)
    run, python = args.out / "run", args.serving_python
    short = ["train.steps=15", "task.split.num_validation=50", f"task.split.num_test={args.rows}", "device=cpu"]
    call(["optimize", "template=system", *short, *args.overrides, f"output_dir={run}"])
    call(export(run, "model"))
    references = {arm: reference_of(run, arm) for arm in ARMS}
    routes = []
    for route in (
        by_command("in process", [], run, python, references),
        by_command("engine=vllm", ["engine=vllm", EAGER], run, python, references),
        by_servers(run, python, references),
    ):
        routes.append(route)
        report(routes, args.out)
    return 0 if all(one.is_explained for route in routes for one in route.comparisons) else 1


def by_command(name: str, words: list[str], run: Path, python: Path, references: dict[str, Reference]) -> Route:
    """`embedgrad evaluate` of all arms."""
    out = run / ("by-engine" if words else "in-process")
    command = ["evaluate", f"artifact={run}/prompt.safetensors", f"arms=[{','.join(ARMS)}]", "device=cpu", *words]
    began = time.monotonic()
    elsewhere(python, [*command, f"output_dir={out}"], run)
    in_all = time.monotonic() - began
    lines = map(json.loads, (out / "samples.jsonl").read_text(encoding="utf-8").splitlines())
    answering = sum(line["seconds"] for line in lines) - sum(starts_in(out / "embedgrad.log"))
    found = [compare(name, arm, answers_in(out, one, arm), one) for arm, one in references.items()]
    return Route(name, answering, in_all, found)


def starts_in(log: Path) -> Iterator[float]:
    """The seconds that vLLM took to start, which count as its first answers' own."""
    return (float(seconds) for seconds in re.findall(r"started in (\S+) seconds", log.read_text(encoding="utf-8")))


def by_servers(run: Path, python: Path, references: dict[str, Reference]) -> Route:
    """`embedgrad evaluate server=URL`, 8 requests in flight."""
    began, answering, found = time.monotonic(), 0.0, list[Comparison]()
    served = {
        base_model(run): {"none": "none", "seed": "seed"},
        run / "model": {"served": "optimized"},
    }
    for number, (model, arms) in enumerate(served.items()):
        out = run / f"server-{number}"
        with vllm_server(python, model, run / f"server-{number}.log") as url:
            asked = time.monotonic()
            artifact, wanted = f"artifact={run}/prompt.safetensors", f"arms=[{','.join(arms)}]"
            elsewhere(python, ["evaluate", f"server={url}", artifact, wanted, f"output_dir={out}"], run)
            answering += time.monotonic() - asked
        found += [
            compare("server", arm, answers_in(out, references[arm], name), references[arm])
            for name, arm in arms.items()
        ]
    return Route("server", answering, time.monotonic() - began, found)


def base_model(run: Path) -> Path:
    return Path(assets.resolve(yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["model"]["path"]))


def report(routes: list[Route], out: Path) -> None:
    """All routes so far, so that nothing is lost with a later one."""
    table = Table("route", "arm", "equal answers", "correct", "in process", "answering", "in all")
    for route in routes:
        for one in route.comparisons:
            seconds = (f"{route.answering:.0f} s", f"{route.in_all:.0f} s") if one is route.comparisons[0] else ("", "")
            table.add_row(
                one.route, one.prompt, f"{one.equal} of {one.total}", str(one.correct), str(one.reported), *seconds
            )
    console.print(table)
    for one in routes[-1].comparisons:
        for d in one.differences:
            what = f"{d['found']!r} instead of {d['expected']!r} at token {d['place']}, logits {d['gap']:.1e} apart"
            console.print(f"{one.route}, {one.prompt}, {d['id']}: {what}", markup=False)
    write_json(out / "time_engines.json", {"routes": [asdict(route) for route in routes]})


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serving-python", type=Path, required=True, help="the python of an environment with vLLM")
    parser.add_argument("--rows", type=int, default=500, help="test rows")
    parser.add_argument("--out", type=Path, default=Path("outputs/engines"))
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="of the run that optimises")
    args = parser.parse_args(given)
    args.serving_python, args.out = args.serving_python.absolute(), args.out.absolute()
    return args


if __name__ == "__main__":
    sys.exit(main())
