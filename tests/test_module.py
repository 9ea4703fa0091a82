"""`python -m embedgrad_cli` is the command `embedgrad`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from embedgrad_cli import __version__


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "embedgrad_cli", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_citation_has_the_version_that_the_command_prints() -> None:
    citation = Path(__file__).parents[1] / "CITATION.cff"
    assert f"\nversion: {__version__}\n" in citation.read_text(encoding="utf-8")


def test_it_answers_as_the_command_does() -> None:
    assert run("--version").stdout == f"embedgrad {__version__}\n"
    wrong = run("optimise")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("embedgrad: there is no command 'optimise'.")
