"""Safetensors files read and written: the library itself says what is right."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from embedgrad_cli.errors import ModelError
from embedgrad_cli.exports import weight_files
from embedgrad_cli.exports.weight_files import (
    NAMES,
    ChangedTensor,
    Checkpoint,
    StoredTensor,
    mean_row,
    metadata_of,
    read_rows,
    stored_tensors,
    write_safetensors,
)

METADATA = {"format": "pt", **{f"made_with_{number}": "a tool" for number in range(9)}}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of a few rows shall be read in several pieces, as large ones are."""
    monkeypatch.setattr(weight_files, "CHUNK_ROWS", 3)


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(0)
    return {
        "table": torch.randn(10, 5, generator=made),
        "half": torch.randn(4, 3, generator=made).bfloat16(),
        "odd": torch.arange(7, dtype=torch.uint8),
        "bias": torch.randn(10, generator=made),
    }


def stored(tensors: dict[str, torch.Tensor], file: Path) -> dict[str, StoredTensor]:
    save_file(tensors, file, METADATA)
    return {tensor.name: tensor for tensor in stored_tensors(file)}


def written(file: Path, *changed: ChangedTensor) -> dict[str, torch.Tensor]:
    write_safetensors(file, changed, {})
    return load_file(file)


def test_a_copy_holds_the_same_tensors(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    tensors |= {"eight": tensors["half"].to(torch.float8_e4m3fn), "scalar": torch.tensor(2.0), "none": torch.ones(0, 4)}
    kept = stored(tensors, tmp_path / "a.safetensors")
    for name in ("b", "c"):
        write_safetensors(tmp_path / name, kept.values(), metadata_of(tmp_path / "a.safetensors"))
    again = load_file(tmp_path / "b")
    assert again.keys() == tensors.keys()
    assert all(again[name].dtype == tensor.dtype for name, tensor in tensors.items())
    assert all(torch.equal(again[name].float(), tensor.float()) for name, tensor in tensors.items())
    assert metadata_of(tmp_path / "b") == METADATA
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_rows_are_replaced_and_added(dtype: torch.dtype, tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    table = stored(tensors, tmp_path / "a.safetensors")["table"]
    new = {2: torch.ones(5), 9: torch.full((5,), 2.0), 12: torch.full((5,), 3.0)}
    expected = torch.cat([tensors["table"], torch.zeros(3, 5)])
    for row, vector in new.items():
        expected[row] = vector
    changed = ChangedTensor(table, new, "t", NAMES[dtype])
    assert torch.equal(written(tmp_path / "b.safetensors", changed)["t"], expected.to(dtype))


def test_a_bias_grows_like_a_table(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    bias = stored(tensors, tmp_path / "a.safetensors")["bias"]
    changed = ChangedTensor(bias, {10: torch.tensor([7.0])}, "bias", "F32")
    expected = torch.cat([tensors["bias"], torch.tensor([7.0])])
    assert torch.equal(written(tmp_path / "b.safetensors", changed)["bias"], expected)


def test_the_mean_leaves_rows_out(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    found = stored(tensors, tmp_path / "a.safetensors")
    expected = tensors["table"][[0, 1, 2, 3, 4, 6, 7, 8]].double().mean(dim=0)
    torch.testing.assert_close(mean_row(found["table"], [5, 9, 30]), expected)
    torch.testing.assert_close(mean_row(found["bias"], []), tensors["bias"].double().mean()[None])


def test_single_rows_are_read(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    found = stored(tensors, tmp_path / "a.safetensors")
    assert torch.equal(read_rows(found["half"], [3, 0]), tensors["half"][[3, 0]])


def test_a_folder_without_weights_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        Checkpoint(tmp_path)
