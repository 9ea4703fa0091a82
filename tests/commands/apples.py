"""A short run on questions about apples, whose answers are generated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.conftest import optimize_config

from embedgrad_cli.commands import optimize
from embedgrad_cli.config.schema import OptimizeConfig


def run_on_apples(folder: Path, model: Path, **changes: Any) -> OptimizeConfig:
    """The finished run in `folder`, and its data beside it."""
    config = apples_config(folder / "trained", folder / "data", model, **changes)
    optimize.run(config)
    return config


def apples_config(output_dir: Path, data: Path, model: Path, **changes: Any) -> OptimizeConfig:
    """The run, with its data written where it is not there."""
    data.mkdir(exist_ok=True)
    for split, start in [("train", 0), ("validation", 100), ("test", 200)]:
        rows = [{"q": f"Tom has {start + i} apples{'!' * i}", "a": f"{i} or #### {i % 3}"} for i in range(6)]
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = optimize_config(output_dir, model, data, **changes)
    task = {"kind": "generation", "choices": None, "labels": None, "grader": "last-number"}
    for key, value in {**task, "query": "{q}", "target": "{a}", "max_new_tokens": 8}.items():
        setattr(config.task, key, value)
    return config
