"""docs/tutorial.md, followed to the letter in an empty folder: every command, the Python, and the figures it shows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.docs.snippets import ROOT, fences, snippets, words_of

from embedgrad_cli.config.arm_spec import short_names

PAGE = "docs/tutorial.md"
ROW = re.compile(r"^│ ([\w:. ]+?) *│ +([\d.]+)% │", re.MULTILINE)
NOT_TYPED = {". .venv/bin/activate": "the interpreter of this test is the environment's"}


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which all was done. `embedgrad` is found first in it, as in an activated environment."""
    folder, programs = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("bin")
    (programs / "embedgrad").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m embedgrad_cli "$@"\n')
    (programs / "embedgrad").chmod(0o755)
    paths = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src")}
    for snippet in snippets(PAGE):
        command = [sys.executable, "-c", snippet.text] if snippet.language == "python" else typed(snippet.text)
        done = subprocess.run(command, cwd=folder, env=os.environ | paths, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{snippet.text}\n{done.stderr}"
        (folder / "printed").open("a").write(done.stdout)
    return folder


def typed(command: str) -> list[str]:
    """What the shell is given for a command: for `make demo`, what its rule does once all is installed."""
    if command.strip() in NOT_TYPED:
        return ["true"]
    if words_of(command) == ["make", "demo"]:
        shown = subprocess.run(["make", "--dry-run", "demo"], cwd=ROOT, capture_output=True, text=True, check=True)
        (command,) = [line for line in shown.stdout.splitlines() if "embedgrad optimize" in line]
        command = command.replace(".venv/bin/", "")
    return ["sh", "-c", command]


@pytest.mark.slow
@pytest.mark.long
def test_every_file_that_it_names_is_there(followed: Path) -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    named = set(re.findall(r"outputs/[\w/.]+\w", text))
    assert len(named) > 6
    assert [name for name in sorted(named) if not (followed / name).exists()] == []


@pytest.mark.slow
@pytest.mark.long
def test_the_figures_are_what_it_shows(followed: Path) -> None:
    """Within two points: another processor rounds otherwise."""
    shown = [ROW.findall(text) for language, text in fences(PAGE) if language == "" and ROW.search(text)]
    for rows, run in zip(shown, ("demo", "texts"), strict=True):
        arms = json.loads((followed / "outputs" / run / "results.json").read_text())["arms"]
        measured = [100 * arm["accuracy"] for arm in arms.values()]
        assert [arm for arm, _ in rows] == list(short_names(list(arms)).values())
        assert [float(accuracy) for _, accuracy in rows] == pytest.approx(measured, abs=2.0)


@pytest.mark.slow
@pytest.mark.long
def test_the_served_prompt_answers(followed: Path) -> None:
    assert (followed / "printed").read_text().splitlines()[-1] == "negative"
