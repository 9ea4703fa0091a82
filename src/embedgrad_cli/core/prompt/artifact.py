"""The `.safetensors` file that an optimised prompt is: vectors, seed, and where they come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.encoding import Slots
from embedgrad_cli.errors import ArtifactError
from embedgrad_cli.storage.artifact_header import FORMAT_VERSION, read_header
from embedgrad_cli.storage.files import write_atomically

SEED_ROWS = "embedding rows of the seed's tokens"
LIBRARIES = ("embedgrad", "torch", "transformers")


@dataclass(frozen=True)
class Artifact:
    """An artifact in memory. `metadata` is the JSON under the file's one metadata key, `embedgrad`."""

    prompt: SoftPrompt
    metadata: dict[str, Any]


def describe(
    prompt: SoftPrompt, model: LanguageModel, config: dict[str, Any], split_hash: str, metrics: dict[str, Any]
) -> dict[str, Any]:
    """The metadata of an artifact. Holds no time and no path of the run, so that equal runs give equal bytes."""
    return {
        "format_version": FORMAT_VERSION,
        "seed": {"text": config["prompt"]["text"], "token_ids": [list(ids) for ids in prompt.slots.ids]},
        "template": config["template"],
        "model": {
            "path": model.path,
            "revision": model.revision,
            "fingerprint": {**model.fingerprint, "seed_embedding": _hash(prompt.seed)},
        },
        "task": config["task"]["name"],
        "split_hash": split_hash,
        "metrics": metrics,
        "libraries": {name: version(name) for name in LIBRARIES},
        "config": {key: value for key, value in config.items() if key not in ("output_dir", "log_level", "device")},
    }


def save_artifact(path: Path, prompt: SoftPrompt, metadata: dict[str, Any]) -> None:
    """Write the artifact whole or not at all. One slot is `soft_prompt`; several are `soft_prompt.0`, …"""
    vectors, seeds = (prompt.split(t.detach().cpu()) for t in (prompt.vectors, prompt.seed))
    names = [""] if len(vectors) == 1 else [f".{i}" for i in range(len(vectors))]
    tensors = {f"soft_prompt{name}": t.contiguous() for name, t in zip(names, vectors, strict=True)}
    tensors |= {f"seed_embedding{name}": t.contiguous() for name, t in zip(names, seeds, strict=True)}
    write_atomically(path, save(tensors, {"embedgrad": json.dumps(metadata, sort_keys=True)}))


def load_artifact(path: Path) -> Artifact:
    """Read an artifact onto the CPU.

    Raises:
        ArtifactError: the file is missing, truncated, no safetensors file, or not one of embedgrad's.
    """
    metadata = read_header(path)
    ids = tuple(tuple(slot) for slot in metadata["seed"]["token_ids"])
    names = [""] if len(ids) == 1 else [f".{i}" for i in range(len(ids))]
    try:
        with safe_open(path, framework="pt") as file:
            vectors = torch.cat([file.get_tensor(f"soft_prompt{name}") for name in names])
            seed = torch.cat([file.get_tensor(f"seed_embedding{name}") for name in names])
    except Exception as error:
        raise ArtifactError(
            f"artifact={path} cannot be read: {error}. Expected are the tensors soft_prompt and seed_embedding; "
            "write the file again with `embedgrad optimize`."
        ) from error
    expected = sum(len(slot) for slot in ids)
    if not (vectors.ndim == 2 and vectors.shape == seed.shape and len(vectors) == expected):
        raise ArtifactError(
            f"artifact={path} is damaged: soft_prompt is {list(vectors.shape)} and seed_embedding "
            f"{list(seed.shape)}, but the seed has {expected} tokens. Write it again with `embedgrad optimize`."
        )
    return Artifact(SoftPrompt(Slots(ids), seed, vectors), metadata)


def check_fingerprint(artifact: Artifact, model: LanguageModel, path: str) -> None:
    """Refuse a model the prompt was not made for: another config, another tokenizer, other embeddings.

    Embedding rows are compared as numbers, not by hash, so that a model may be loaded in another precision.

    Raises:
        ArtifactError: names both identities and what differs.
    """
    differs = differences(artifact, model)
    if not differs and not _same_rows(artifact.prompt, model):
        differs = [SEED_ROWS]
    refuse_other_model(artifact, model, path, differs)


def refuse_other_model(artifact: Artifact, model: LanguageModel, path: str, differs: list[str]) -> None:
    """Raise `ArtifactError` with both identities if something differs."""
    made_for = artifact.metadata["model"]
    if differs:
        raise ArtifactError(
            f"artifact={path} was made for the model {identity(made_for)}, but the model here is "
            f"{identity({'path': model.path, 'revision': model.revision, 'fingerprint': model.fingerprint})}; "
            f"different: {', '.join(differs)}. Use the model it was made for (model=… or model.path=…), or optimise "
            "a prompt for this one."
        )


def differences(artifact: Artifact, model: LanguageModel) -> list[str]:
    """What differs between a model and the one the artifact was made for, weights left aside."""
    made_for = artifact.metadata["model"]["fingerprint"]
    return [key for key in ("config", "tokenizer") if made_for[key] != model.fingerprint[key]]


def identity(model: dict[str, Any]) -> str:
    """A model's name, revision and the beginning of its fingerprint, for people to compare."""
    prints = model["fingerprint"]
    revision = f"@{model['revision']}" if model["revision"] else ""
    return f"{model['path']}{revision} (config {prints['config'][:8]}, tokenizer {prints['tokenizer'][:8]})"


def tested_on(test: Mapping[str, Any]) -> int | None:
    """How many rows an artifact's `metrics.test` is of.

    The number is not written down, but follows from any arm that got one right; None if none did.
    """
    counts = [round(arm["correct"] / arm["accuracy"]) for arm in test["arms"].values() if arm["correct"]]
    return counts[0] if counts else None


def _same_rows(prompt: SoftPrompt, model: LanguageModel) -> bool:
    if max(prompt.slots.flat_ids) >= model.network.get_input_embeddings().weight.shape[0]:
        return False
    here = SoftPrompt.from_seed(prompt.slots, model).seed.cpu()
    # bfloat16 keeps 8 bits of a number, so rounding may move it by 1/256 of its size.
    return here.shape == prompt.seed.shape and torch.allclose(here, prompt.seed, rtol=8e-3, atol=1e-6)


def _hash(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
