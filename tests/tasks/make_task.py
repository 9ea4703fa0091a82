"""A TaskConfig by hand, and data files of a few lines."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from embedgrad_cli.config.task_schema import HubConfig, SplitConfig, TaskConfig


def make_task(data_dir: Path | str | None = None, split: dict[str, Any] | None = None, **changes: Any) -> TaskConfig:
    """A choice task over `text` and `label`, with the three usual files, changed as asked."""
    sizes = {"num_train": None, "num_validation": None, "num_test": None, "folds": None}
    names = {"train": ["train"], "validation": ["validation"], "test": ["test"]}
    settings: dict[str, Any] = {
        "name": "reviews",
        "kind": "choice",
        "data_dir": None if data_dir is None else str(data_dir),
        "hub": HubConfig(path=None, name=None, revision=None),
        "field": None,
        "query": "{text}",
        "target": "{label}",
        "remove": None,
        "target_pattern": None,
        "labels": {"0": "negative", "1": "positive"},
        "choices": ["negative", "positive"],
        "choices_pattern": None,
        "keep": [],
        "fewshot": 0,
        "fewshot_style": "text",
        "grader": "label",
        "score": "sum",
        "extraction": "lenient",
        "fold": None,
        "broken": "error",
        "max_new_tokens": 8,
        "stop": None,
        "too_long": "error",
    }
    return TaskConfig(**{**settings, **changes, "split": SplitConfig(**{**names, **sizes, **(split or {})})})


HELD_OUT = {"validation": None, "test": None, "num_validation": 2, "num_test": 3}


def words_task(data_dir: Path | str | None, **changes: Any) -> TaskConfig:
    """A generation task over `question` and `answer`, graded by the last number, with validation and test held out."""
    settings = {"kind": "generation", "labels": None, "choices": None, "grader": "last-number"}
    fields = {"query": "{question}", "target": "{answer}", "split": HELD_OUT}
    return make_task(data_dir, **{**settings, **fields, **changes})


def write_lines(path: Path, records: list[dict[str, Any]]) -> Path:
    """Write a jsonl file."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def write_reviews(folder: Path, **splits: list[tuple[str, str]]) -> Path:
    """Write one jsonl file per split from (text, label) pairs; a split that is not given has one row of its own."""
    for name in ("train", "validation", "test"):
        pairs = splits.get(name, [(f"a film of {name}", "1")])
        write_lines(folder / f"{name}.jsonl", [{"text": text, "label": label} for text, label in pairs])
    return folder


def fake_hub(monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    """A hub on which every data set is `answer`, its splits by name, or fails with it."""

    def load_dataset_builder(path: str, name: str | None, revision: str | None) -> object:
        if isinstance(answer, Exception):
            raise answer
        return types.SimpleNamespace(
            repo_id=path, hash="auto", download_and_prepare=lambda: None, as_dataset=lambda: answer
        )

    quiet = types.SimpleNamespace(CRITICAL=50, set_verbosity=lambda level: None)
    config = types.SimpleNamespace(HF_HUB_OFFLINE=True, HF_DATASETS_TRUST_REMOTE_CODE=None)
    fake = types.SimpleNamespace(
        load_dataset_builder=load_dataset_builder, disable_progress_bars=lambda: None, logging=quiet, config=config
    )
    monkeypatch.setitem(sys.modules, "datasets", fake)
