"""The graders that settings name are those that there are."""

from __future__ import annotations

from typing import get_args, get_type_hints

from embedgrad_cli.config.task_schema import TaskConfig
from embedgrad_cli.tasks import graders


def test_settings_name_every_grader_and_no_other() -> None:
    assert set(get_args(get_type_hints(TaskConfig)["grader"])) == set(graders._GRADERS)
