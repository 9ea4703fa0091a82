"""What `embedgrad evaluate server=URL` makes of a served prompt, as token ids."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from embedgrad_cli.cli.main import main as embedgrad
from serving.compare import Reference


def graded(folder: Path, reference: Reference, url: str) -> list[list[int]]:
    """The command's answers to the test rows of a run, of the arm `served`.

    Texts are all that a chat gives. One that is the reference's has its tokens; another is tokenised.
    """
    out = folder / "by-server"
    shutil.rmtree(out, ignore_errors=True)
    command = ["evaluate", f"server={url}", f"artifact={folder}/prompt.safetensors", "arms=[served]"]
    if embedgrad([*command, f"output_dir={out}"]) != 0:
        sys.exit(f"embedgrad {' '.join(command)} failed")
    lines = map(json.loads, (out / "samples.jsonl").read_text(encoding="utf-8").splitlines())
    texts = {line["id"]: line["output"] for line in lines}
    tokenizer = reference.model.tokenizer
    found = []
    for row, ids in zip(reference.rows, reference.answers, strict=True):
        same = texts[row.id] == tokenizer.decode(list(ids), skip_special_tokens=True).strip()
        found.append(list(ids) if same else tokenizer(texts[row.id], add_special_tokens=False)["input_ids"])
    return found
