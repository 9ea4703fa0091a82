"""Safetensors weights as files: rows of a table are read, and shards changed, without loading a model.

`safe_open` maps files into memory, so only what is asked for is read. A changed shard is written by hand: `save_file`
puts several metadata keys in an order of chance, so that equal exports would differ, and bars all users but one.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from embedgrad_cli.core.model.shards import INDEX, SINGLE, read_index
from embedgrad_cli.errors import ModelError

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
CHUNK_ROWS = 1024


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file; `dtype` is the format's name of a type."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]

    def load(self) -> Tensor:
        """The tensor, mapped: its bytes are read when they are used."""
        with safe_open(self.file, framework="pt") as file:
            return file.get_tensor(self.name)


@dataclass(frozen=True)
class ChangedTensor:
    """A stored table (or a vector, as a table of width 1) with some rows replaced or, past its end, added.

    `name` and `dtype` are those to write it under and in; the type may be another one than the stored one's.
    """

    stored: StoredTensor
    rows: Mapping[int, Tensor]
    name: str
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        num_rows, *width = self.stored.shape
        return (max(num_rows, max(self.rows) + 1), *width)

    def load(self) -> Tensor:
        """The whole table, in memory. Added rows without a value are zero: a tokenizer may skip ids."""
        table = torch.zeros(self.shape, dtype=DTYPES[self.dtype])
        table[: self.stored.shape[0]] = self.stored.load()
        for row, vector in self.rows.items():
            table[row] = vector
        return table


class Checkpoint:
    """The safetensors files of a model folder that transformers would load, and no others that lie beside them.

    `tensors` has every tensor by name, `files` the shards in order, `index` the parsed index file if there is one.

    Args:
        folder: the model's.
        named: the file that config.json names as `transformers_weights`. Without one a single file goes before an
            index, which may be an older save's.

    Raises:
        ModelError: the folder has no safetensors weights, or one of its files is damaged.
    """

    def __init__(self, folder: Path, named: str | None = None) -> None:
        self.folder = folder
        self.index: dict[str, Any] | None = None
        chosen = named or (SINGLE if (folder / SINGLE).is_file() else INDEX)
        try:
            if Path(chosen).is_absolute() or ".." in Path(chosen).parts:
                raise ValueError(f"transformers_weights={chosen} is outside the folder")
            if chosen.endswith(".index.json"):
                self.index = read_index(folder, chosen)
                if self.index is None:
                    raise FileNotFoundError(f"there is no {chosen}")
                self.files = [folder / name for name in sorted(set(self.index["weight_map"].values()))]
            else:
                self.files = [folder / chosen]
            self.tensors = {tensor.name: tensor for file in self.files for tensor in stored_tensors(file)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            raise ModelError(
                f"the weights in {folder} cannot be read: {error}. Expected is {SINGLE}, or the shards that {INDEX} "
                "names; save the model with `save_pretrained`, which writes them."
            ) from error


def stored_tensors(file: Path) -> list[StoredTensor]:
    """The tensors of one file."""
    with safe_open(file, framework="pt") as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
        return [StoredTensor(file, name, part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()]


def read_rows(tensor: StoredTensor, rows: Sequence[int]) -> Tensor:
    """Some rows of a table, `[len(rows), width]`, in the table's own type; nothing else is read."""
    with safe_open(tensor.file, framework="pt") as file:
        table = file.get_slice(tensor.name)
        return torch.cat([table[row : row + 1] for row in rows])


def mean_row(tensor: StoredTensor, left_out: Sequence[int]) -> Tensor:
    """The mean of a table's rows but for some, float64 `[width]` (a vector counts as a table of width 1)."""
    num_rows, *width = tensor.shape
    kept = ~torch.isin(torch.arange(num_rows), torch.tensor(left_out, dtype=torch.long))
    total = torch.zeros(*width or [1], dtype=torch.float64)
    with safe_open(tensor.file, framework="pt") as file:
        table = file.get_slice(tensor.name)
        for start in range(0, num_rows, CHUNK_ROWS):
            end = min(start + CHUNK_ROWS, num_rows)
            total += table[start:end][kept[start:end]].double().sum(dim=0)
    return total / kept.sum()


def nearest_row(tensor: StoredTensor, vector: Tensor, end: int) -> int:
    """The number of the row, among the first `end`, that is nearest to a vector, `[width]`."""
    nearest, row = math.inf, 0
    with safe_open(tensor.file, framework="pt") as file:
        table = file.get_slice(tensor.name)
        for start in range(0, end, CHUNK_ROWS):
            distances = (table[start : min(start + CHUNK_ROWS, end)].double() - vector).norm(dim=1)
            if distances.min() < nearest:
                nearest, row = distances.min().item(), start + int(distances.argmin())
    return row


def same_rows(one: StoredTensor, other: StoredTensor, left_out: Sequence[int] = ()) -> bool:
    """Whether two tables hold the same rows, in the type of `other`, as far as both go and but for some."""
    num_rows = min(one.shape[0], other.shape[0])
    kept = ~torch.isin(torch.arange(num_rows), torch.tensor(left_out, dtype=torch.long))
    with safe_open(one.file, framework="pt") as first, safe_open(other.file, framework="pt") as second:
        tables = first.get_slice(one.name), second.get_slice(other.name)
        for start in range(0, num_rows, CHUNK_ROWS):
            end = min(start + CHUNK_ROWS, num_rows)
            ours, theirs = (table[start:end][kept[start:end]] for table in tables)
            if not torch.equal(ours.to(theirs.dtype), theirs):
                return False
    return True


def metadata_of(file: Path) -> dict[str, str]:
    """The metadata of one file, its keys in alphabetical order."""
    with safe_open(file, framework="pt") as opened:
        return dict(sorted((opened.metadata() or {}).items()))


def write_safetensors(file: Path, tensors: Iterable[StoredTensor | ChangedTensor], metadata: Mapping[str, str]) -> None:
    """Write tensors, those of the widest type first, which aligns them all. Only changed ones are in memory."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    loaded = [(tensor, tensor.load()) for tensor in tensors]
    loaded.sort(key=lambda pair: (-pair[1].itemsize, pair[0].name))
    end = 0
    for tensor, content in loaded:
        begin, end = end, end + content.nbytes
        header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for _, content in loaded:
            stream.write(content.reshape(-1).view(torch.uint8).numpy().data)
