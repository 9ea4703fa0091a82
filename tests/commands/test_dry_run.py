"""What `--dry-run` prints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import optimize_config

from embedgrad_cli.commands import run_forecast
from embedgrad_cli.config.dry_run import DryRun
from embedgrad_cli.forecast.figures import Changes, Forecast
from embedgrad_cli.forecast.make import make_forecast
from embedgrad_cli.terminal.forecast import fit_words, rough_duration


@pytest.fixture
def forecast(model_folder: Path, choice_data: Path, tmp_path: Path) -> Forecast:
    return make_forecast(optimize_config(tmp_path, model_folder, choice_data), DryRun(memory=10**12))


def test_tables_and_verdict(
    model_folder: Path, choice_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_forecast(optimize_config(tmp_path / "run", model_folder, choice_data), DryRun(memory=10**12, tflops=2.0))
    output = capsys.readouterr().out
    for words in ("first-word", "24 training, 8 validation, 12 test", "weights", "activations", "It fits", "1000.0 GB"):
        assert words in output
    assert "Nothing was measured" in output
    assert not (tmp_path / "run").exists()


def test_what_does_not_fit_says_what_to_change(forecast: Forecast) -> None:
    tight = replace(forecast, device=replace(forecast.device, memory=10))
    helped = replace(tight, changes=Changes(("evaluation.batch_size=4",), 9, True))
    assert "evaluation.batch_size=4" in fit_words(helped)
    assert "Even with" in fit_words(replace(tight, changes=Changes(("evaluation.batch_size=1",), 11, False)))
    assert "smaller model" in fit_words(replace(tight, changes=Changes((), 11, False)))
    assert "--memory" in fit_words(replace(forecast, device=replace(forecast.device, memory=None)))


def test_durations_have_a_unit() -> None:
    assert [rough_duration(seconds) for seconds in (5, 600, 7200)] == ["5 s", "10 min", "2 h"]
