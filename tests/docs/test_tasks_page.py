"""docs/tasks.md is true: its worked example runs as it stands, and its table knows every key."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from embedgrad_cli.cli.main import main
from embedgrad_cli.config.build import keys

TEXT = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_the_worked_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tickets" / "task").mkdir(parents=True)
    (tmp_path / "tickets" / "train.csv").write_text(blocks("csv")[0])
    (tmp_path / "tickets" / "task" / "tickets.yaml").write_text(blocks("yaml")[0])
    commands = [shlex.split(line)[1:] for line in blocks("bash")[1].splitlines()]
    assert [words[0] for words in commands] == ["tasks", "optimize"]

    assert main(["tasks", "--config-dir", "tickets"]) == 0
    assert re.search(
        r"tickets +choice +tickets +Which team answers a message to the help desk\n", capsys.readouterr().out
    )
    assert main(commands[0]) == 0
    assert "rows: 5 train, 2 validation, 3 test" in capsys.readouterr().out
    few = ["train.steps=2", "train.eval_every=2", "train.batch_size=4", "device=cpu"]
    assert main([*commands[1], *few]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["task"], results["num_examples"]) == ("tickets", 3)


def test_the_table_of_keys_is_complete() -> None:
    table = TEXT.partition("## Every key")[2].partition("\n## ")[0]
    documented = {
        key for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for key in re.findall(r"`([\w.]+)`", row)
    }
    assert documented == {key.removeprefix("task.") for key in keys("optimize") if key.startswith("task.")}
