"""A forecast against the run that it is of."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.conftest import optimize_config

from embedgrad_cli.commands import optimize
from embedgrad_cli.config.dry_run import DryRun
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.model.load import load_model
from embedgrad_cli.errors import DataError, UserError
from embedgrad_cli.forecast import make
from embedgrad_cli.forecast.figures import Forecast
from embedgrad_cli.forecast.make import make_forecast
from embedgrad_cli.forecast.timing import time_run
from embedgrad_cli.forecast.workload import Workload
from embedgrad_cli.tasks.load import load


def test_no_weights_are_needed_and_nothing_is_written(model_folder: Path, choice_data: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    (folder / "model.safetensors").unlink()
    forecast = make_forecast(optimize_config(tmp_path / "run", folder, choice_data), DryRun())
    assert forecast.num_rows == (24, 8, 12)
    assert forecast.steps == 6
    assert forecast.fits
    assert not (tmp_path / "run").exists()


def test_rows_and_tokens_are_those_of_the_run(model_folder: Path, choice_data: Path, tmp_path: Path) -> None:
    """The batches are the same ones, and there are as many validations."""
    config = optimize_config(tmp_path / "run", model_folder, choice_data, train__steps=7, train__batch_size=5)
    model = load_model(config.model, torch.device("cpu"))
    work = Workload.of(config, model, load(config.task, config.seed))
    optimize.run(config)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    tokens = [line["tokens"] for line in lines if "tokens" in line]
    assert [sum(example.length for example in batch) for batch in work.batches] == tokens
    assert work.num_validations == sum("validation_loss" in line for line in lines)


def test_a_row_without_room_for_what_the_objective_reads_is_none_of_the_run_s(
    model_folder: Path, tmp_path: Path
) -> None:
    """The first row fits the context with its own label, and not with the other one, which objective=choice reads too.

    So `optimize` refuses it, or leaves it out.
    """
    labels = {"0": "a", "1": "humane film " * 40}
    for split in ("train", "validation", "test"):
        texts = [f"{split} {i}" for i in range(4)]
        texts[0] += " apples" * 430 * (split == "train")
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps({"text": t, "label": 0}) + "\n" for t in texts))
    more = {"task__labels": labels, "task__choices": list(labels.values())}

    def forecast(**changes: str) -> Forecast:
        return make_forecast(optimize_config(tmp_path / "run", model_folder, tmp_path, **more, **changes), DryRun())

    assert forecast().num_rows[0] == 4
    assert forecast(objective__name="choice", task__too_long="skip").num_rows[0] == 3
    with pytest.raises(DataError, match="train:0 needs"):
        forecast(objective__name="choice")


def test_a_device_that_is_not_here_needs_its_memory(model_folder: Path, choice_data: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    config = optimize_config(tmp_path, model_folder, choice_data, device="cuda")
    for request in (DryRun(), DryRun(timed=True, memory=10**9)):
        with pytest.raises(UserError, match="--memory"):
            make_forecast(config, request)
    forecast = make_forecast(config, DryRun(memory=24 * 10**9))
    assert (forecast.device.name, forecast.device.memory) == ("cuda", 24 * 10**9)
    assert "program" not in forecast.moments["training step"].parts


def test_an_assumed_rate_divides_the_operations(model_folder: Path, choice_data: Path, tmp_path: Path) -> None:
    config = optimize_config(tmp_path, model_folder, choice_data)
    slow, fast = (make_forecast(config, DryRun(tflops=rate)) for rate in (1.0, 2.0))
    assert slow.time is not None
    assert fast.time is not None
    assert slow.time.total == pytest.approx(2 * fast.time.total)
    assert slow.step is not None
    assert slow.time.training == pytest.approx(6 * slow.step.operations / 1e12, rel=1e-3)
    assert slow.time.measured is None


@pytest.mark.parametrize("kind", ["choice", "generation"])
def test_a_measured_time_grows_with_the_run(
    kind: str, model_folder: Path, choice_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a clock on which every timed call takes a second."""
    changes = {} if kind == "choice" else {"task__kind": kind, "task__choices": None}
    config = optimize_config(tmp_path, model_folder, choice_data, **changes)
    model = load_model(config.model, torch.device("cpu"))
    work = Workload.of(config, model, load(config.task, config.seed))

    def second(call: object, _: Workload) -> float:
        call()  # type: ignore[operator]
        return 1.0

    monkeypatch.setattr("embedgrad_cli.forecast.timing._timed", second)
    figures = time_run(work, start=5.0)
    assert figures.start == 5.0
    assert figures.step == pytest.approx(1.0, rel=0.3)
    assert figures.training == pytest.approx(6 * figures.step)
    assert figures.validation == pytest.approx(2.0 * 4)  # one batch holds them all: answers and the loss
    assert 3 < figures.test < 6  # three arms of 12 rows, of which one has no prompt, where 8 took a second
    twice = replace(work, batches=[*work.batches, *work.batches])
    assert time_run(twice, 0.0).training > 1.5 * figures.training


def test_weights_are_loaded_where_time_is_measured(
    model_folder: Path, choice_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[LanguageModel] = []

    def keep(*args: object) -> LanguageModel:
        loaded.append(load_model(*args))  # type: ignore[arg-type]
        return loaded[-1]

    monkeypatch.setattr(make, "load_model", keep)
    config = optimize_config(tmp_path / "run", model_folder, choice_data)
    assert make_forecast(config, DryRun()).time is None
    assert not loaded
    forecast = make_forecast(config, DryRun(timed=True))
    assert forecast.time is not None
    assert forecast.time.total > 0
    assert len(loaded) == 1
    assert not (tmp_path / "run").exists()
