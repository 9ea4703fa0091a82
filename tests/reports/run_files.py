"""Run directories of the real shape with rows and a training, made by hand."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.comparison.run_files import summary, write_run

from embedgrad_cli.storage.files import write_json_lines
from embedgrad_cli.storage.metrics_records import StepMetrics, ValidationMetrics
from embedgrad_cli.storage.sample_records import FoundAnswer, Sample

# What could end a script, a comment, an attribute or a string, or be taken for markup.
NASTY = (
    "</script><script>window.broken = 1</script>",
    "<!-- <script>",
    "]]>",
    "<img src=x onerror=window.broken=1>",
    '"\\"; window.broken = 1; //',
    "\u2028\u2029\x00\x7f",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;&amp;",
    "😀 ü 漢字",
)
ARMS = ("none", "seed", "optimized")


def sample(number: int, arm: str, right: bool, output: str, query: str = "", which: int = 0) -> Sample:
    found = FoundAnswer(extracted=output, correct=right)
    return Sample(
        id=f"test:{number}",
        row_hash="r",
        arm=arm,
        sample=which,
        prompt_hash="p",
        query=query or f"query {number}",
        answer=f"target {number}",
        output=output,
        extracted=output,
        correct=right,
        strict=found,
        lenient=found,
        tokens=3,
        seconds=0.01,
        ending="end_of_turn",
    )


def samples(right: Sequence[Sequence[bool]], text: Callable[[int], str]) -> list[Sample]:
    """A line per row and arm, as in samples.jsonl; `right` is by arm."""
    return [
        sample(number, arm, of_arm[number], f"{text(number)} {arm}", f"{text(number)} {number}")
        for number in range(len(right[0]))
        for arm, of_arm in zip(ARMS, right, strict=True)
    ]


def write_full_run(path: Path, num_rows: int = 40, text: Callable[[int], str] = "row {}".format) -> Path:
    """A finished run with a training of 30 steps, and every kind of row: fixed, broken, both wrong, both right."""
    chance = random.Random(0)
    right = [[chance.random() < share for _ in range(num_rows)] for share in (0.2, 0.4, 0.7)]
    chosen = {"accuracy": 0.7, "loss": 0.5, "step": 20}
    write_run(path, results=summary(right[1], right[2], "t", validation=chosen))
    results = json.loads((path / "results.json").read_text())
    results["arms"]["none"]["correct"], results["arms"]["none"]["accuracy"] = sum(right[0]), sum(right[0]) / num_rows
    (path / "results.json").write_text(json.dumps(results))
    write_json_lines(path / "samples.jsonl", samples(right, text))
    steps = [
        StepMetrics(step=n, loss=2 / n, grad_norm=1 / n, lr=0.1, drift=n / 60, tokens=9, seconds=0.1)
        for n in range(1, 31)
    ]
    validations = [
        ValidationMetrics(step=n, validation_accuracy=0.4 + n / 70, validation_loss=1 / (n + 1), best=n == 20)
        for n in (0, 10, 20)
    ]
    write_json_lines(path / "metrics.jsonl", [*steps, *validations])
    return path
