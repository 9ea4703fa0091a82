"""What `embedgrad evaluate` and `optimize` make of a prompt by a server and by another engine, as token ids."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import files
from pathlib import Path

import embedgrad_cli
from embedgrad_cli.cli.main import main as embedgrad
from serving.compare import Reference
from serving.server import ENVIRONMENT

EAGER = "engine_args={enforce_eager: true}"


def by_server(folder: Path, reference: Reference, url: str, *settings: str) -> list[list[int]]:
    """The answers of `server=URL` to the test rows of a run, of the arm `served`."""
    out = folder / "by-server"
    shutil.rmtree(out, ignore_errors=True)
    command = ["evaluate", f"server={url}", f"artifact={folder}/prompt.safetensors", "arms=[served]"]
    if embedgrad([*command, *settings, f"output_dir={out}"]) != 0:
        sys.exit(f"embedgrad {' '.join(command)} failed")
    return answers_in(out, reference, "served")


def by_engine(folder: Path, reference: Reference, python: Path) -> list[list[int]]:
    """The answers of `engine=vllm`, in an environment that has it, of the arm `optimized`."""
    out = folder / "by-engine"
    shutil.rmtree(out, ignore_errors=True)
    command = ["evaluate", f"artifact={folder}/prompt.safetensors", "engine=vllm", EAGER]
    elsewhere(python, [*command, "arms=[optimized]", "device=cpu", f"output_dir={out}"], folder)
    return answers_in(out, reference, "optimized")


def elsewhere(python: Path, command: Sequence[str], work: Path) -> None:
    """Run embedgrad in another environment, which has what it imports and not embedgrad.

    Args: work: a folder for what an installed package has beside its code: its version.
    """
    metadata = work / "metadata"
    for file in files("embedgrad") or []:
        if file.parent.suffix == ".dist-info":
            target = metadata / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), target)
    path = os.pathsep.join([str(Path(embedgrad_cli.__file__).parents[1]), str(metadata)])
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": path}
    subprocess.run([str(python), "-m", "embedgrad_cli", *command], check=True, env=environment)


def answers_in(out: Path, reference: Reference, arm: str) -> list[list[int]]:
    """Texts are all that a run keeps. One that is the reference's has its tokens; another is tokenised."""
    lines = map(json.loads, (out / "samples.jsonl").read_text(encoding="utf-8").splitlines())
    texts = {line["id"]: line["output"] for line in lines if line["arm"] == arm}
    tokenizer = reference.model.tokenizer
    found = []
    for row, ids in zip(reference.rows, reference.answers, strict=True):
        same = texts[row.id] == tokenizer.decode(list(ids), skip_special_tokens=True).strip()
        found.append(list(ids) if same else tokenizer(texts[row.id], add_special_tokens=False)["input_ids"])
    return found
