"""What is said of a task's rows when they are read."""

from __future__ import annotations

from typing import Any

import pytest

from embedgrad_cli.config.compose import Request, config_of
from embedgrad_cli.tasks.load import load


@pytest.mark.parametrize(("overrides", "warns"), [(["task.stop=[Q:]"], False), (['task.stop=[Q:,"####"]'], True)])
def test_a_stop_string_within_targets_is_warned_of(
    overrides: list[str], warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    config: Any = config_of(Request("optimize", ["task=word-problems", *overrides]))
    splits = load(config.task, 0)
    warned = [record.getMessage() for record in caplog.records if "task.stop" in record.getMessage()]
    assert bool(warned) == warns
    assert all("'####'" in text and splits.train[0].id in text for text in warned)
