"""Run directories as an optimisation leaves them, made on the spot, and trackers that are not what they should be."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from embedgrad_cli.storage.files import json_line
from embedgrad_cli.storage.metrics_records import StepMetrics, ValidationMetrics

OLD_RUN = Path(__file__).parents[1] / "storage/old_run"


def step_line(step: int) -> str:
    row = StepMetrics(step=step, loss=2.0 / step, grad_norm=0.5, lr=0.1, drift=0.01 * step, tokens=100, seconds=0.1)
    return json_line(row)


def validation_line(step: int) -> str:
    return json_line(ValidationMetrics(step=step, validation_accuracy=0.5, validation_loss=1.5, best=step == 0))


@pytest.fixture
def run_directory(tmp_path: Path) -> Path:
    """One of six steps, validated before the first and after every second one, and finished."""
    folder = tmp_path / "run"
    shutil.copytree(OLD_RUN, folder)
    lines = [validation_line(0)]
    for step in range(1, 7):
        lines += [step_line(step), *([validation_line(step)] if step % 2 == 0 else [])]
    (folder / "metrics.jsonl").write_text("".join(lines))
    (folder / "report.html").write_text("<p>a page</p>")
    return folder


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts a module of a tracker's name, with this code, in front of all others in the processes that begin now."""

    def put(name: str, code: str) -> None:
        folder = tmp_path / "stand_ins"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(code)
        paths = [str(folder), str(Path(__file__).parents[2] / "src")]
        monkeypatch.setenv("PYTHONPATH", ":".join(paths))

    return put
