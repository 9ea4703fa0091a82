"""What training reads and writes: SST-2's rows, the model folder, the embedded tasks."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from tiny.causes import case
from tiny.mixture import Sentence
from tiny.pools import T, from_pool
from tiny.problems import word_problem
from tiny.reviews import LABELS, review

TASK_SIZES = {"train": 1024, "validation": 200, "test": 500}


def read_sst2(folder: Path | None, split: str) -> list[Sentence]:
    """Sentences and labels of one SST-2 split (tab-separated, no quoting), stripped."""
    if folder is None:
        return []
    lines = (folder / f"{split}.tsv").read_text(encoding="utf-8").splitlines()[1:]
    rows = [line.rsplit("\t", 1) for line in lines]
    return [(sentence.strip(), LABELS[int(label)]) for sentence, label in rows]


def save(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the model folder: float16 weights under a config that asks for float32, which a CPU needs."""
    fresh = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    half = copy.deepcopy(model).half()
    half.save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    (fresh / "chat_template.jinja").unlink(missing_ok=True)
    _edit(fresh / "config.json", dtype="float32")
    _edit(
        fresh / "tokenizer_config.json",
        chat_template=tokenizer.chat_template,
        tokenizer_class="PreTrainedTokenizerFast",
    )
    (fresh / "model.safetensors").chmod(0o644)
    (fresh / "generation_config.json").write_text(
        json.dumps({"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}, indent=2) + "\n"
    )
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def _edit(path: Path, **changes: str) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}, indent=2) + "\n", encoding="utf-8")


def write_tasks(folder: Path, seed: int) -> None:
    """Write the embedded tasks: train, validation and test rows, each from its own pool, none twice."""
    _write_task(folder / "word-problems", word_problem, lambda p: {"question": p.question, "answer": p.solution}, seed)
    _write_task(folder / "reviews", review, lambda r: {"review": r.question, "label": r.label}, seed)
    _write_task(folder / "causes", case, lambda c: {"story": c.question, "answer": c.label, "kind": c.kind}, seed)


def _write_task(
    folder: Path, generate: Callable[[random.Random], T], row_of: Callable[[T], dict[str, str]], seed: int
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in TASK_SIZES.items():
        rng = random.Random(f"task {name} {seed}")
        rows: dict[str, dict[str, str]] = {}
        while len(rows) < size:
            example = from_pool(name, generate, rng)
            rows[example.question] = row_of(example)
        lines = [json.dumps(row) + "\n" for row in rows.values()]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
