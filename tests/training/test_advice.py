"""A run's end says where the best validation was, if that asks for other settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.conftest import optimize_config

from embedgrad_cli.commands import optimize
from embedgrad_cli.storage.results_record import Validation
from embedgrad_cli.training.advice import advice_after


@pytest.mark.parametrize(
    ("best", "last", "accuracy", "names"),
    [
        (60, 60, 0.8, "train.steps=120"),
        (0, 60, 0.8, "optimizer.lr=0.033"),
        (10, 60, 0.8, "optimizer.lr=0.033"),
        (30, 60, 0.8, None),
        (10, 20, 0.8, None),  # of two validations one is the first
        (60, 60, 1.0, None),  # no more can be had
        (0, 60, 1.0, None),
        (40, 40, 0.8, None),  # stopped before its last step
        (0, 0, 0.8, None),
    ],
)
def test_where_the_best_validation_was(
    best: int, last: int, accuracy: float, names: str | None, tmp_path: Path
) -> None:
    config = optimize_config(tmp_path, tmp_path, tmp_path, train__steps=60, train__eval_every=10)
    said = advice_after(Validation(accuracy=accuracy, loss=1.0, step=best), last, config)
    assert (said is None) if names is None else (names in str(said))


def test_results_and_report_say_it(
    tmp_path: Path, model_folder: Path, choice_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So small a rate changes no answer, and a little loss: the last step is the best."""
    config = optimize_config(tmp_path, model_folder, choice_data, optimizer__lr=1e-3, optimizer__warmup_steps=0)
    optimize.run(config)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["validation"]["step"] == 6
    assert "train.steps=12" in results["advice"]
    assert results["advice"] in capsys.readouterr().out
    optimize.run(config)
    assert results["advice"] in capsys.readouterr().out, "a finished run says it again"
