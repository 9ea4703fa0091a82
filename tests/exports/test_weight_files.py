"""Safetensors files read and written as streams: the library itself says what is right."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from embedgrad_cli.errors import ModelError
from embedgrad_cli.exports import weight_files as checkpoint
from embedgrad_cli.exports.weight_files import (
    Checkpoint,
    copied,
    mean_row,
    metadata_of,
    read_rows,
    stored_tensors,
    with_rows,
    write_safetensors,
)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of a few rows shall be read in several pieces, as large ones are."""
    monkeypatch.setattr(checkpoint, "CHUNK_BYTES", 3 * 5 * 4)


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(0)
    return {
        "table": torch.randn(10, 5, generator=made),
        "half": torch.randn(4, 3, generator=made).bfloat16(),
        "odd": torch.arange(7, dtype=torch.uint8),
        "bias": torch.randn(10, generator=made),
    }


def stored(tensors: dict[str, torch.Tensor], file: Path) -> dict[str, checkpoint.StoredTensor]:
    save_file(tensors, file, {"format": "pt"})
    return {tensor.name: tensor for tensor in stored_tensors(file)}


def test_a_copy_holds_the_same_tensors(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    found = stored(tensors, tmp_path / "a.safetensors")
    write_safetensors(tmp_path / "b.safetensors", [copied(t) for t in found.values()], {"format": "pt"})
    again = load_file(tmp_path / "b.safetensors")
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())
    assert metadata_of(tmp_path / "b.safetensors") == {"format": "pt"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_rows_are_replaced_and_added(dtype: torch.dtype, tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    table = stored(tensors, tmp_path / "a.safetensors")["table"]
    new = {2: torch.ones(5), 9: torch.full((5,), 2.0), 12: torch.full((5,), 3.0)}
    write_safetensors(tmp_path / "b.safetensors", [with_rows(table, new, dtype, "t")], {})
    expected = torch.cat([tensors["table"], torch.zeros(3, 5)])
    for row, vector in new.items():
        expected[row] = vector
    assert torch.equal(load_file(tmp_path / "b.safetensors")["t"], expected.to(dtype))


def test_a_bias_grows_like_a_table(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    bias = stored(tensors, tmp_path / "a.safetensors")["bias"]
    write_safetensors(tmp_path / "b.safetensors", [with_rows(bias, {10: torch.tensor([7.0])}, torch.float32)], {})
    expected = torch.cat([tensors["bias"], torch.tensor([7.0])])
    assert torch.equal(load_file(tmp_path / "b.safetensors")["bias"], expected)


def test_the_mean_leaves_rows_out(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    found = stored(tensors, tmp_path / "a.safetensors")
    expected = tensors["table"][[0, 1, 2, 3, 4, 6, 7, 8]].double().mean(dim=0)
    torch.testing.assert_close(mean_row(found["table"], [5, 9, 30]), expected)
    torch.testing.assert_close(mean_row(found["bias"], []), tensors["bias"].double().mean()[None])


def test_single_rows_are_read(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    found = stored(tensors, tmp_path / "a.safetensors")
    assert torch.equal(read_rows(found["half"], [3, 0]), tensors["half"][[3, 0]])


def test_a_folder_without_weights_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"Expected is model\.safetensors"):
        Checkpoint(tmp_path)


def test_names_without_the_network_s_prefix(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """GPT-2's own files say `wte.weight`, its network `transformer.wte.weight`."""
    save_file({"wte.weight": tensors["table"]}, tmp_path / "model.safetensors")
    found = Checkpoint(tmp_path).find("transformer.wte.weight", "transformer")
    assert found is not None
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert found.shape == tuple(file.get_slice("wte.weight").get_shape())
