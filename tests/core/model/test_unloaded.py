"""A model without its weights is as the loaded one, but for their numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.conftest import make_model, shared_data

from embedgrad_cli.config.schema import ModelConfig
from embedgrad_cli.core.kernels.live_memory import LiveMemory
from embedgrad_cli.core.model.load import load_model
from embedgrad_cli.core.model.unloaded import load_unloaded
from embedgrad_cli.errors import ModelError

QWEN = "configs/qwen2.5"


def config_of(folder: Path, dtype: str = "auto") -> ModelConfig:
    return ModelConfig(str(folder), None, dtype, "auto", False)  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", ["qwen2", "gemma2", "gpt2", "mistral"])
def test_it_is_as_the_loaded_one_and_no_weights_are_read(architecture: str, tmp_path: Path) -> None:
    model = make_model(architecture)
    model.network.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    loaded = load_model(config_of(tmp_path), torch.device("cpu"))
    (tmp_path / "model.safetensors").unlink()
    found = load_unloaded(config_of(tmp_path), "cpu")
    shapes = [{n: (p.shape, p.dtype) for n, p in one.network.named_parameters()} for one in (loaded, found)]
    assert shapes[0] == shapes[1]
    assert {p.device.type for p in found.network.parameters()} == {"meta"}
    assert (found.is_chat, found.max_length, found.sliding_window) == (True, loaded.max_length, loaded.sliding_window)
    assert found.reads_trunk_in_place == loaded.reads_trunk_in_place
    assert found.has_plain_head == loaded.has_plain_head


@pytest.mark.parametrize(("device", "reads"), [("cpu", True), ("cuda", True), ("mps", False)])
def test_a_trunk_is_read_in_place_where_there_is_a_kernel(model_folder: Path, device: str, reads: bool) -> None:
    assert load_unloaded(config_of(model_folder), device).reads_trunk_in_place is reads


def test_what_is_stored_in_float32_runs_in_bfloat16_on_a_gpu(model_folder: Path) -> None:
    dtypes = [load_unloaded(config_of(model_folder), device).dtype for device in ("cpu", "mps", "cuda")]
    assert dtypes == [torch.float32, torch.float32, torch.bfloat16]


def test_the_precision_is_the_one_asked_for_or_that_of_the_files(model_folder: Path, tmp_path: Path) -> None:
    assert load_unloaded(config_of(model_folder, "bfloat16"), "cpu").dtype == torch.bfloat16
    folder = Path(shutil.copytree(model_folder, tmp_path / "half"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float16"}))
    assert load_unloaded(config_of(folder), "cpu").dtype == torch.float16


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=str(tmp_path)):
        load_unloaded(config_of(tmp_path), "cpu")


@pytest.mark.parametrize("size", [0.5, 1.5, 3, 7])
def test_real_configs_have_the_parameters_that_their_names_say(size: float, tmp_path: Path) -> None:
    for file in shared_data("tokenizers/qwen2.5").iterdir():
        shutil.copy(file, tmp_path)
    (config,) = shared_data(QWEN).glob(f"Qwen2.5-{size:g}B*.config.json")
    shutil.copy(config, tmp_path / "config.json")
    model = load_unloaded(config_of(tmp_path), "cuda")
    assert sum(p.numel() for p in model.network.parameters()) == pytest.approx(size * 1e9, rel=0.1)
    assert model.dtype.itemsize == 2
    assert model.has_plain_head


def test_a_head_that_caps_its_logits_is_seen_without_numbers() -> None:
    model = make_model("gemma2")
    model.network.to("meta")
    with LiveMemory(model.network, "cpu"):
        assert not model.has_plain_head
