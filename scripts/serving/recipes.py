"""The recipes of docs/serving.md, run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import embedgrad_cli

DOCUMENT = Path(__file__).parents[2] / "docs/serving.md"
ADDRESS = "http://127.0.0.1:8000"  # vLLM's own
BLOCK = re.compile(r"^```(bash|python|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(heading: str) -> list[tuple[str, str]]:
    """Language and text of every code block under a heading."""
    section = DOCUMENT.read_text(encoding="utf-8").split(f"## {heading}\n", 1)[1]
    return BLOCK.findall(re.split(r"^## ", section, flags=re.MULTILINE)[0])


def run_block(language: str, text: str, folder: Path, commands: Path | None = None, **variables: str) -> str:
    """Run one block in a folder, with this Python. Returns what it printed; raises if it failed.

    Args:
        commands: a folder of commands that this Python's environment has not.
        variables: of the environment, beside those that are set.
    """
    # This Python's commands and this package, wherever it was imported from.
    binaries = os.pathsep.join(map(str, filter(None, [Path(sys.executable).parent, os.environ["PATH"], commands])))
    package = str(Path(embedgrad_cli.__file__).parents[1])
    environment = {**os.environ, **variables, "PATH": binaries, "PYTHONPATH": package}
    command = [sys.executable, "-c", text] if language == "python" else ["bash", "-euc", text]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise RuntimeError(f"a recipe of {DOCUMENT.name} failed:\n{text}\n{done.stderr}")
    return done.stdout


def run_recipe(heading: str, folder: Path, url: str) -> None:
    """Run a vLLM recipe's clients against a server that is there already.

    Raises:
        RuntimeError: a block failed, or printed no worked answer.
    """
    for language, text in blocks(heading):
        if "vllm serve" in text:
            continue
        printed = run_block(language, text.replace(ADDRESS, url), folder)
        if "####" not in printed:
            raise RuntimeError(f"a recipe of {DOCUMENT.name} printed no answer:\n{text}\n{printed}")
