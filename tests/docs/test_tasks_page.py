"""docs/tasks.md is true: its worked example is what it says, and its table knows every key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.docs.workplace import Workplace

from embedgrad_cli.config.build import keys

TEXT = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_worked_example(workplace: Workplace) -> None:
    listed = workplace.command("embedgrad tasks --config-dir tickets")
    assert re.search(r"tickets +choice +tickets +Which team answers a message to the help desk\n", listed)
    shown = workplace.command("embedgrad tasks show tickets --config-dir tickets")
    assert "rows: 5 train, 2 validation, 3 test" in shown


def test_the_table_of_keys_is_complete() -> None:
    table = TEXT.partition("## Every key")[2].partition("\n## ")[0]
    documented = {
        key for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for key in re.findall(r"`([\w.]+)`", row)
    }
    assert documented == {key.removeprefix("task.") for key in keys("evaluate") if key.startswith("task.")}
