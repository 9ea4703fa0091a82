"""Hand-made run directories of the real shape."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import PLACEMENTS, optimize_config

from embedgrad_cli.evaluation.significance import paired_difference, wilson_interval

Capture = pytest.CaptureFixture[str]
Records = Callable[..., list[dict[str, Any]]]


def summary(seed: list[bool], optimized: list[bool], test_hash: str, **more: Any) -> dict[str, Any]:
    """A results.json, from what the two prompts got right."""
    n, arms = len(seed), {"none": [False] * len(seed), "seed": seed, "optimized": optimized}
    return {
        "task": "words",
        "split": "test",
        "num_examples": n,
        "num_skipped": 0,
        "model": "embedded:tiny",
        "arms": {
            name: {"accuracy": sum(right) / n, "ci95": list(wilson_interval(sum(right), n)), "correct": sum(right)}
            | {"invalid": 0}
            for name, right in arms.items()
        },
        "comparison": {"baseline": "seed", "candidate": "optimized", **vars(paired_difference(seed, optimized))},
        "drift": {"mean_relative_l2": 0.5, "nearest_kept": 5, "num_tokens": 6, "nearest": []},
        "split_hash": "s",
        "test_hash": test_hash,
    } | more


def write_run(
    path: Path,
    right: int = 5,
    test_hash: str = "t",
    results: Any = None,
    validation: float | None = None,
    **changes: Any,
) -> Path:
    """A finished run of 10 examples, in validation as good as in the test unless said otherwise.

    `changes` are settings, with `__` for the dot.
    """
    config = asdict(optimize_config(path, Path("model"), Path("data"), template=PLACEMENTS["system"]))
    for key, value in changes.items():
        *parts, name = key.split("__")
        part = config
        for one in parts:
            part = part[one]
        part[name] = value
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    answers = [index < right for index in range(10)]
    chosen = {"accuracy": right / 10 if validation is None else validation, "loss": 1.0, "step": 5}
    own = summary([True] * 2 + [False] * 8, answers, test_hash, validation=chosen)
    content = results if results is not None else own
    (path / "results.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return path
