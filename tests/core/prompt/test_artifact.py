from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.artifacts import plain_metadata, save_prompt
from tests.conftest import make_model, optimize_config

from embedgrad_cli.core.prompt.artifact import check_fingerprint, load_artifact, save_artifact, warn_quantization
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Slots
from embedgrad_cli.errors import ArtifactError
from embedgrad_cli.storage.artifact_metadata import ArtifactMetadata
from embedgrad_cli.storage.quantization import QUANTIZATIONS


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


def test_settings_that_change_no_result_change_no_byte(tmp_path: Path) -> None:
    model = make_model()
    prompt, config = SoftPrompt.from_seed(Slots(((5, 9),)), model), optimize_config(tmp_path, tmp_path, tmp_path)
    for name, arguments in (("a", None), ("b", {"gpu_memory_utilization": 0.4})):
        save_prompt(tmp_path / name, prompt, model, replace(config, engine_args=arguments, output_dir=name))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("tensor", ["soft_prompt", "seed_embedding"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(tensor: str, value: float, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    prompt = SoftPrompt.from_seed(Slots(((5, 9),)), make_model())
    save_artifact(path, prompt, metadata_for(((5, 9),)))
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors[tensor][1, 2] = value
    save_file(tensors, path, metadata)
    with pytest.raises(ArtifactError, match=rf"{tensor} holds NaN or infinity in 1 of"):
        load_artifact(path)


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


def test_another_quantisation_is_recorded_and_warned_of(
    tmp_path: Path, model_folder: Path, choice_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, file = make_model(), tmp_path / "prompt.safetensors"
    packed = replace(model, quantization=QUANTIZATIONS["nf4"])
    prompt = SoftPrompt.from_seed(Slots(((5, 6),)), packed)
    save_prompt(file, prompt, packed, optimize_config(tmp_path, model_folder, choice_data))
    artifact = load_artifact(file)
    assert artifact.metadata.model.quantization == QUANTIZATIONS["nf4"]
    check_fingerprint(artifact, model, str(file))  # it fits all the same
    for here, warns in ((packed, False), (replace(model, quantization=QUANTIZATIONS["int8"]), True), (model, True)):
        caplog.clear()
        warn_quantization(artifact, here, str(file))
        assert ("nf4 (bitsandbytes)" in caplog.text) == warns
