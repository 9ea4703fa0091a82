"""Every command in docs/evaluation.md runs, in the order in which it stands there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from embedgrad_cli.cli import main as cli

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"
SMALL = ["task.split.num_test=6", "task.split.num_validation=4", "task.max_new_tokens=12"]


def test_the_commands_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    train = ["train.steps=1", "task.split.num_train=8", "device=cpu", "output_dir=outputs/demo"]
    assert cli.main(["optimize", *SMALL, *train]) == 0
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert len(commands) >= 9
    for number, (program, *words) in enumerate(commands):
        assert program == "embedgrad"
        more = [] if any(word.startswith("output_dir=") for word in words) else [f"output_dir=outputs/{number}"]
        more += (
            SMALL if any(word.startswith("task=") for word in words) else []
        )  # the others take them from the artifact
        capsys.readouterr()
        assert cli.main([*words, "device=cpu", *more]) == 0, (words, capsys.readouterr().err)
        assert "Written to outputs/" in capsys.readouterr().out
    results = json.loads(Path("outputs/later/results.json").read_text())
    assert results["comparison"]["baseline"] == "none"
    assert cli.main(["compare", "outputs", "--mixed"]) == 0
    assert "text:First, think; then answer." in capsys.readouterr().out
