"""TensorBoard's own reader finds in the event files what the run directory has; and no byte of that is another."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import optimize_config
from tests.stops import run_until

from embedgrad_cli.commands import optimize
from embedgrad_cli.config.schema import OptimizeConfig, TrackerConfig
from embedgrad_cli.storage.tracker_record import TrackerRecord

accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed: make setup"
)

TENSORBOARD = TrackerConfig(name="tensorboard")
SAME = ("prompt.safetensors", "checkpoint.safetensors", "metrics.jsonl", "results.json", "samples.jsonl")
CLOCKS = {"seconds", "timing", "peak_memory_bytes"}


def events_of(run: Path) -> object:
    events = accumulator.EventAccumulator(str(run / "tensorboard"), size_guidance={accumulator.SCALARS: 0})
    events.Reload()
    return events


def without_clocks(content: object) -> object:
    if isinstance(content, dict):
        return {key: without_clocks(value) for key, value in content.items() if key not in CLOCKS}
    return [without_clocks(item) for item in content] if isinstance(content, list) else content


def content(file: Path) -> object:
    if file.suffix == ".safetensors":
        return file.read_bytes()
    return (
        [without_clocks(json.loads(line)) for line in file.read_text().splitlines()]
        if file.suffix == ".jsonl"
        else (without_clocks(json.loads(file.read_text())))
    )


@pytest.fixture
def config(tmp_path: Path, model_folder: Path, choice_data: Path) -> OptimizeConfig:
    return optimize_config(tmp_path / "tracked", model_folder, choice_data)


@pytest.mark.slow
def test_stopped_and_resumed_shows_each_point_once_and_changes_no_byte(config: OptimizeConfig, tmp_path: Path) -> None:
    optimize.run(replace(config, output_dir=str(tmp_path / "plain")))
    shown = replace(config, tracker=TENSORBOARD)
    run_until(3, shown)
    optimize.run(shown)
    for name in SAME:
        assert content(tmp_path / "tracked" / name) == content(tmp_path / "plain" / name), name

    events = events_of(tmp_path / "tracked")
    rows = [json.loads(line) for line in (tmp_path / "tracked/metrics.jsonl").read_text().splitlines()]
    for tag, key in (("train/loss", "loss"), ("train/grad_norm", "grad_norm"), ("train/drift", "drift")):
        told = [(event.step, event.value) for event in events.Scalars(tag)]  # type: ignore[attr-defined]
        assert told == [(row["step"], pytest.approx(row[key], rel=1e-6)) for row in rows if key in row], tag
    told = [event.step for event in events.Scalars("validation/accuracy")]  # type: ignore[attr-defined]
    assert told == [row["step"] for row in rows if "validation_accuracy" in row]
    texts = {
        tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode()  # type: ignore[attr-defined]
        for tag in ("parameters/text_summary", "results/text_summary")
    }
    assert "| train.steps | 6 |" in texts["parameters/text_summary"]
    assert "optimized" in texts["results/text_summary"]
    assert "report.html" in texts["results/text_summary"]
    assert TrackerRecord.read(tmp_path / "tracked/tracker.json").ended


@pytest.mark.slow
def test_a_finished_run_can_be_shown_later(config: OptimizeConfig, tmp_path: Path) -> None:
    optimize.run(config)
    before = content(tmp_path / "tracked/results.json")
    optimize.run(replace(config, tracker=TENSORBOARD))
    assert len(events_of(tmp_path / "tracked").Scalars("train/loss")) == 6  # type: ignore[attr-defined]
    assert content(tmp_path / "tracked/results.json") == before
