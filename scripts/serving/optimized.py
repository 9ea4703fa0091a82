"""A short optimisation with `engine=vllm` beside the same one by embedgrad alone: what is trained and answered."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from serving.compare import Comparison, compare
from serving.graded import EAGER, answers_in, elsewhere
from serving.reference import reference_of

SHORT = ("train.steps=10", "train.eval_every=5", "task.split.num_validation=20", "task.split.num_test=50")
ARMS = ("none", "seed", "optimized")


def by_engine_in_training(out: Path, python: Path) -> Iterator[Comparison]:
    """The answers of every arm in the test, on the embedded model. Both runs are made in the environment that has vLLM.

    A run that trains otherwise, or chooses another step by answers that are the same, ends the script.
    """
    runs = out / "in-process", out / "in-vllm"
    shutil.rmtree(out, ignore_errors=True)
    for run, engine in zip(runs, ([], ["engine=vllm", EAGER]), strict=True):
        command = ["optimize", "template=system", "device=cpu", *SHORT, *engine, f"output_dir={run}"]
        elsewhere(python, command, out)
    check_training(*runs)
    for arm in ARMS:
        reference = reference_of(runs[0], arm)
        yield compare("vLLM, optimize engine=vllm", arm, answers_in(runs[1], reference, arm), reference)


def check_training(ours: Path, theirs: Path) -> None:
    """Every step is the same to the last digit; so are the vectors if both validations chose the same step."""
    steps = [_steps(run) for run in (ours, theirs)]
    if steps[0] != steps[1]:
        sys.exit(f"{ours} and {theirs}: the steps in metrics.jsonl differ")
    chosen = [json.loads((run / "results.json").read_text())["validation"]["step"] for run in (ours, theirs)]
    tensors = [load_file(run / "prompt.safetensors") for run in (ours, theirs)]
    if chosen[0] == chosen[1] and not tensors[0]["soft_prompt"].equal(tensors[1]["soft_prompt"]):
        sys.exit(f"{ours} and {theirs}: the vectors of step {chosen[0]} differ")
    if chosen[0] != chosen[1]:
        sys.exit(f"{ours} chose step {chosen[0]}, {theirs} {chosen[1]}: some answer in validation differs")


def _steps(run: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines if "loss" in line]
