"""What a digest of a model's files sees, and what makes no difference to it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from embedgrad_cli.config.schema import ModelConfig
from embedgrad_cli.core.model import model_digest as module
from embedgrad_cli.core.model.model_digest import model_digest


def digest(folder: Path, trusts: bool = False) -> str | None:
    return model_digest(ModelConfig(str(folder), None, "auto", "auto", trusts))


def edit(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def test_a_copy_is_the_same_model(tmp_path: Path, model_folder: Path) -> None:
    shutil.copytree(model_folder, tmp_path / "copy")
    (tmp_path / "copy/README.md").write_text("A copy.")
    (tmp_path / "copy/modeling.py").write_text("code that does not run")
    assert digest(tmp_path / "copy") == digest(model_folder)
    assert digest(tmp_path / "copy", trusts=True) != digest(model_folder)


@pytest.mark.parametrize("samples_large_files", [False, True])
def test_what_is_seen(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, samples_large_files: bool
) -> None:
    """Of a large file the header, every sampled block and the size; between the samples nothing."""
    shutil.copytree(model_folder, tmp_path / "model")
    weights = tmp_path / "model/model.safetensors"
    size, header = weights.stat().st_size, 8 + int.from_bytes(weights.read_bytes()[:8], "little")
    if samples_large_files:
        for name, value in {"READ_WHOLE": size - 1, "BLOCK": 64, "STRIDE": size // 4}.items():
            monkeypatch.setattr(module, name, value)
    before, sampled = digest(tmp_path / "model"), size // 2 - size // 2 % (size // 4)
    for place, is_seen in [(header - 1, True), (sampled, True), (sampled + 64, not samples_large_files)]:
        edit(weights, place)
        assert (digest(tmp_path / "model") != before) == is_seen
        edit(weights, place)
    weights.write_bytes(weights.read_bytes() + b"\0")
    assert digest(tmp_path / "model") != before


def test_shards_are_those_of_the_index(tmp_path: Path, model_folder: Path) -> None:
    for name in ("config.json", "generation_config.json"):
        shutil.copy(model_folder / name, tmp_path)
    for name in "abc":
        (tmp_path / f"{name}.safetensors").write_text(name)
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"x": "b.safetensors", "y": "a.safetensors", "z": "a.safetensors"}})
    )
    before = digest(tmp_path)
    edit(tmp_path / "c.safetensors", 0)
    assert digest(tmp_path) == before
    edit(tmp_path / "b.safetensors", 0)
    assert digest(tmp_path) != before


def test_a_model_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert digest(Path("nobody/nothing")) is None
