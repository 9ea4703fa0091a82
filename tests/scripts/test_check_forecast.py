"""The comparison of a forecast with its run runs, on the embedded model."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.slow
@pytest.mark.long
def test_every_figure_is_compared(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    script = importlib.import_module("check_forecast")
    words = ["train.steps=2", "task.split.num_validation=8", "task.split.num_test=8", "task.max_new_tokens=8"]
    script.main(["--cpu-time", *words])
    output = capsys.readouterr().out
    found = dict(re.findall(r"^\| (\w+) \| .* \| ([\d.]+) \|$", output, re.MULTILINE))
    assert set(found) == {"memory", "step", "training", "total"}
    assert 0.5 < float(found["memory"]) < 2
