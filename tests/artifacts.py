"""Artifacts that tests write, whole or damaged."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.prompt.artifact import artifact_metadata, save_artifact
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.storage.artifact_metadata import ArtifactMetadata, PromptMetrics


def save_prompt(
    path: Path, prompt: SoftPrompt, model: LanguageModel, config: OptimizeConfig, split_hash: str = "hash"
) -> ArtifactMetadata:
    """Write an artifact as `optimize` would, before its first validation. Returns: its metadata."""
    metadata = artifact_metadata(prompt, model, config, [], split_hash, PromptMetrics())
    save_artifact(path, prompt, metadata)
    return metadata


def edited(metadata: ArtifactMetadata, **changes: Any) -> ArtifactMetadata:
    """The metadata with other values; `changes` are dotted keys with `__` for the dot."""
    plain = json.loads(json.dumps(metadata.to_json()))
    for key, value in changes.items():
        *path, name = key.split("__")
        target = plain
        for part in path:
            target = target[part]
        target[name] = value
    return ArtifactMetadata.from_json(plain, "edited metadata")


def plain_metadata(**changes: Any) -> dict[str, Any]:
    """The JSON in an artifact, complete; `changes` are top-level keys."""
    config = {
        "seed": 0,
        "model": {"path": "embedded:tiny", "revision": None, "template": "auto"},
        "task": {
            "name": "mine",
            "kind": "choice",
            "data_dir": None,
            "hub": {"path": None, "name": None},
            "fewshot_style": "text",
            "max_new_tokens": 8,
        },
        "optimizer": {"name": "adamw", "lr": 0.1},
        "train": {"steps": 3, "batch_size": 4},
    }
    return {
        "format_version": 1,
        "seed": {"text": "Think.", "token_ids": [[5]]},
        "template": {"messages": [{"role": "user", "content": "{prompt} {query}"}], "text": "{prompt}\n{query}\n"},
        "model": {
            "path": "embedded:tiny",
            "revision": None,
            "fingerprint": {"config": "0" * 64, "tokenizer": "1" * 64},
        },
        "task": "mine",
        "split_hash": "2" * 64,
        "metrics": {},
        "libraries": {"embedgrad": "0.1.0"},
        "config": config,
    } | changes


def write_header(path: Path, metadata: object, data: int = 4) -> Path:
    """A safetensors file with this metadata (a `str` as it is, None: none) and `data` of a tensor's four bytes."""
    header: dict[str, Any] = {"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    if metadata is not None:
        header["__metadata__"] = {"embedgrad": metadata if isinstance(metadata, str) else json.dumps(metadata)}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(data))
    return path
