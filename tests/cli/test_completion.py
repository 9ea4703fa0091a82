"""Shell completion of subcommands, their flags and their settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedgrad_cli.cli import main as cli
from embedgrad_cli.cli.names import COMMANDS


def complete(line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("COMP_LINE", line)
    assert cli.main(["-sc", "query=bash"]) == 0
    return capsys.readouterr().out.split()


def test_words(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert complete("embedgrad ", capsys, monkeypatch) == list(cli.COMMANDS)
    assert complete("embedgrad ev", capsys, monkeypatch) == ["evaluate"]
    assert complete("embedgrad optimize task=s", capsys, monkeypatch) == ["task=sst2"]
    assert "train.steps=" in complete("embedgrad optimize train.", capsys, monkeypatch)
    assert complete("embedgrad export form", capsys, monkeypatch) == ["format="]
    assert complete("embedgrad optimize --mul", capsys, monkeypatch) == ["--multirun"]


@pytest.mark.parametrize("command", COMMANDS)
def test_flags(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that the command's help names, and no others."""
    flags = complete(f"embedgrad {command} -", capsys, monkeypatch)
    assert cli.main([command, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert set(flags) == {
        word.strip(",") for line in lines if line.startswith("  -") for word in line.split() if word.startswith("--")
    }


def test_within_bash(tmp_path: Path) -> None:
    """The installed function, called as bash calls it."""
    program = tmp_path / "embedgrad"
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom embedgrad_cli.cli.main import main\nsys.exit(main())\n")
    program.chmod(0o755)
    script = """
        eval "$(embedgrad -sc install=bash)"
        COMP_LINE="embedgrad optimize task=s"; COMP_POINT=${#COMP_LINE}; COMP_CWORD=2
        hydra_bash_completion
        echo "${COMPREPLY[@]}"
    """
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "task=sst2", done.stderr
