from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.artifacts import plain_metadata
from tests.conftest import make_model

from embedgrad_cli.core.prompt.artifact import load_artifact, save_artifact
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.encoding import Slots
from embedgrad_cli.errors import ArtifactError
from embedgrad_cli.storage.artifact_metadata import ArtifactMetadata


def metadata_for(ids: tuple[tuple[int, ...], ...]) -> ArtifactMetadata:
    seed = {"text": "Think.", "token_ids": [list(slot) for slot in ids]}
    return ArtifactMetadata.from_json(plain_metadata(seed=seed), "test")


@pytest.mark.parametrize("ids", [((5, 9, 30),), ((5, 9), (30,))])
def test_round_trip(tmp_path: Path, ids: tuple[tuple[int, ...], ...]) -> None:
    prompt = SoftPrompt.from_seed(Slots(ids), make_model())
    with torch.no_grad():
        prompt.vectors += 0.1
    metadata = metadata_for(ids)
    save_artifact(tmp_path / "a.safetensors", prompt, metadata)
    artifact = load_artifact(tmp_path / "a.safetensors")
    assert torch.equal(artifact.prompt.vectors, prompt.vectors)
    assert torch.equal(artifact.prompt.seed, prompt.seed)
    assert artifact.prompt.slots == prompt.slots
    assert artifact.metadata == metadata
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    prompt = SoftPrompt.from_seed(Slots(((5, 9),)), make_model())
    save_artifact(path, prompt, metadata_for(((5, 9),)))
    whole = path.read_bytes()

    def refused(content: bytes) -> str:
        path.write_bytes(content)
        with pytest.raises(ArtifactError) as caught:
            load_artifact(path)
        assert str(path) in str(caught.value)
        return str(caught.value)

    assert "truncated" in refused(whole[:-10])
    for size in (0, 5, 40):
        refused(whole[:size])
    refused(b"PK\x03\x04 a zip file, perhaps a pickle" * 10)
    save_file({"weight": torch.zeros(2)}, path)
    assert "not an embedgrad artifact" in refused(path.read_bytes())
    newer = {"embedgrad": json.dumps({"format_version": 99})}
    save_file({"soft_prompt": torch.zeros(2, 32)}, path, newer)
    assert "format version 99" in refused(path.read_bytes())
    save_artifact(path, prompt, metadata_for(((5, 9, 7),)))
    assert "damaged" in refused(path.read_bytes())
