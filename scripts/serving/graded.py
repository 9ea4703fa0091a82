"""What `embedgrad evaluate` makes of a prompt by a server and by another engine, as token ids."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import embedgrad_cli
from embedgrad_cli.cli.main import main as embedgrad
from serving.compare import Reference
from serving.server import ENVIRONMENT


def by_server(folder: Path, reference: Reference, url: str) -> list[list[int]]:
    """The answers of `server=URL` to the test rows of a run, of the arm `served`."""
    out = folder / "by-server"
    shutil.rmtree(out, ignore_errors=True)
    command = ["evaluate", f"server={url}", f"artifact={folder}/prompt.safetensors", "arms=[served]"]
    if embedgrad([*command, f"output_dir={out}"]) != 0:
        sys.exit(f"embedgrad {' '.join(command)} failed")
    return _answers(out, reference)


def by_engine(folder: Path, reference: Reference, python: Path) -> list[list[int]]:
    """The answers of `engine=vllm`, in an environment that has it, of the arm `optimized`."""
    out = folder / "by-engine"
    shutil.rmtree(out, ignore_errors=True)
    command = [str(python), "-m", "embedgrad_cli", "evaluate", f"artifact={folder}/prompt.safetensors", "engine=vllm"]
    command += ["arms=[optimized]", "+engine_args={enforce_eager: true}", "device=cpu", f"output_dir={out}"]
    package = str(Path(embedgrad_cli.__file__).parents[1])
    subprocess.run(command, check=True, env={**os.environ, **ENVIRONMENT, "PYTHONPATH": package})
    return _answers(out, reference)


def _answers(out: Path, reference: Reference) -> list[list[int]]:
    """Texts are all that a run keeps. One that is the reference's has its tokens; another is tokenised."""
    lines = map(json.loads, (out / "samples.jsonl").read_text(encoding="utf-8").splitlines())
    texts = {line["id"]: line["output"] for line in lines}
    tokenizer = reference.model.tokenizer
    found = []
    for row, ids in zip(reference.rows, reference.answers, strict=True):
        same = texts[row.id] == tokenizer.decode(list(ids), skip_special_tokens=True).strip()
        found.append(list(ids) if same else tokenizer(texts[row.id], add_special_tokens=False)["input_ids"])
    return found
