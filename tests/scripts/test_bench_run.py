"""The whole run beside PEFT's: both sides do the experiment that the overrides name, and say what came out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

pytest.importorskip("peft")

import bench_run


@pytest.mark.slow
def test_both_sides_do_the_same_experiment(tmp_path: Path) -> None:
    counts = [f"task.split.num_{split}=8" for split in ("train", "validation", "test")]
    steps = ["train.steps=2", "train.eval_every=2", "train.batch_size=4", "task.max_new_tokens=4"]
    overrides = ["task=reviews", "prompt=sentiment", "model=tiny", *counts, *steps]
    bench_run.main(["--json", str(tmp_path / "row.json"), *overrides])
    (row,) = json.loads((tmp_path / "row.json").read_text())
    assert row["ratio"] == pytest.approx(row["other_seconds"] / row["seconds"], rel=1e-2)
    assert sum(row["phases"].values()) < row["seconds"]
    assert set(row["arms"]) == set(row["other_arms"]) == {"none", "seed", "optimized"}
    assert all(accuracy * 8 == round(accuracy * 8) for accuracy in row["other_arms"].values()), "of eight rows"
