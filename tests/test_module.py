"""`python -m embedgrad_cli` is the command `embedgrad`."""

from __future__ import annotations

import subprocess
import sys

from embedgrad_cli import __version__


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "embedgrad_cli", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_answers_as_the_command_does() -> None:
    assert run("--version").stdout == f"embedgrad {__version__}\n"
    wrong = run("optimise")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("embedgrad: there is no command 'optimise'.")
