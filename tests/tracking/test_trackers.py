"""MLflow, Trackio and W&B as they are: what they were given in two parts, read back by their own means.

`make test-trackers` has them in an environment of their own.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedgrad_cli.config.schema import TrackerConfig
from embedgrad_cli.errors import EmbedgradError
from embedgrad_cli.storage.interrupts import Stopped
from embedgrad_cli.storage.tracker_record import TrackerRecord
from embedgrad_cli.tracking.tracked import tracked

pytestmark = [pytest.mark.slow, pytest.mark.trackers]
STEPS = [1, 2, 3, 4, 5, 6]
FILES = {"prompt.safetensors", "results.json", "report.html"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "place"


def show_in_two_parts(directory: Path, settings: TrackerConfig, caplog: pytest.LogCaptureFixture) -> TrackerRecord:
    """A run that is stopped within step 4 and goes on; the end of its metrics is written in the second part."""
    metrics = (directory / "metrics.jsonl").read_bytes()
    results = (directory / "results.json").read_bytes()
    (directory / "metrics.jsonl").write_bytes(b"".join(metrics.splitlines(keepends=True)[:6]))
    (directory / "results.json").unlink()
    with pytest.raises(EmbedgradError), tracked(directory, settings):
        raise Stopped("in a test", directory)
    (directory / "metrics.jsonl").write_bytes(metrics)
    (directory / "results.json").write_bytes(results)
    with tracked(directory, settings):
        pass
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == []
    record = TrackerRecord.read(directory / "tracker.json")
    assert record.ended
    return record


def logged(file: Path) -> Iterator[bytes]:
    """The records of W&B's own file: LevelDB's log format behind seven bytes, in blocks of 32 KiB."""
    data, at, record = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:  # too few for a header
            at += left
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def expected(directory: Path) -> float:
    return float(json.loads((directory / "results.json").read_text())["arms"]["optimized"]["accuracy"])


def test_mlflow(run_directory: Path, place: Path, caplog: pytest.LogCaptureFixture) -> None:
    (run_directory.parent / "multirun.yaml").touch()
    record = show_in_two_parts(run_directory, TrackerConfig(name="mlflow", place=str(place)), caplog)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{place}/mlflow.db")
    run = client.get_run(record.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == f"{run_directory.parent.name}/run"
    assert client.get_experiment(run.info.experiment_id).name == f"embedgrad/{run_directory.parent.name}"
    assert run.data.params["train.steps"].isdigit()
    history = client.get_metric_history(record.run_id, "train/loss")
    assert sorted((one.step, one.value) for one in history) == [(step, 2.0 / step) for step in STEPS]
    assert len(client.get_metric_history(record.run_id, "validation/accuracy")) == 4
    assert run.data.metrics["test/optimized/accuracy"] == expected(run_directory)
    assert {file.path for file in client.list_artifacts(record.run_id)} >= {*FILES, "arms.json", "comparisons.json"}


def test_trackio(run_directory: Path, place: Path, caplog: pytest.LogCaptureFixture) -> None:
    record = show_in_two_parts(run_directory, TrackerConfig(name="trackio", place=str(place)), caplog)
    read = (
        "import json, trackio\n"
        "from trackio.sqlite_storage import SQLiteStorage\n"
        "(run,) = trackio.Api().runs('embedgrad')\n"
        "print(json.dumps([run.name, run.config, SQLiteStorage.get_logs('embedgrad', run.name)], default=str))"
    )
    words = [sys.executable, "-c", read]
    told = subprocess.run(words, env={"TRACKIO_DIR": str(place)}, capture_output=True, text=True, check=True).stdout
    name, config, history = json.loads(told.splitlines()[-1])
    assert name == record.run_id
    assert config["train.steps"].isdigit()
    assert [row["step"] for row in history if "train/loss" in row] == STEPS
    assert [row["step"] for row in history if "validation/accuracy" in row] == [0, 2, 4, 6]
    (last,) = [row for row in history if "test/optimized/accuracy" in row]
    assert last["test/optimized/accuracy"] == expected(run_directory)


def test_wandb_offline(run_directory: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123456789abcdef01234567")
    record = show_in_two_parts(run_directory, TrackerConfig(name="wandb"), caplog)
    from wandb.proto import wandb_internal_pb2

    rows, configured, kept = [], set[str](), set[str]()
    for file in sorted(run_directory.glob("wandb/offline-run-*/*.wandb")):
        for data in logged(file):
            line = wandb_internal_pb2.Record()
            line.ParseFromString(data)
            rows.append(
                {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in line.history.item}
            )
            configured |= {item.key for item in line.run.config.update}
            kept |= {entry.path for entry in line.request.log_artifact.artifact.manifest.contents}
            kept |= {entry.path for entry in line.artifact.manifest.contents}
        assert record.run_id in file.name
    assert [row["step"] for row in rows if "train/loss" in row] == STEPS
    assert [row["step"] for row in rows if "validation/accuracy" in row] == [0, 2, 4, 6]
    assert "train.steps" in configured
    assert kept >= FILES
    written = b"".join(file.read_bytes() for file in run_directory.rglob("*") if file.is_file())
    assert b"0123456789abcdef" not in written
