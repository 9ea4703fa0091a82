"""Safetensors weights as files: rows of a table are read, and shards copied, without loading a model.

A safetensors file is eight bytes (the header's length), a JSON header with type, shape and place of each tensor, and
the tensors' bytes one after the other. So a tensor can be copied, or made longer, as a stream of bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from embedgrad_cli.errors import ModelError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
CHUNK_BYTES = 1 << 24


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file; `start` is where its bytes begin."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    num_bytes: int

    def read(self, num_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """Its bytes, in pieces of at most so many."""
        with self.file.open("rb") as stream:
            stream.seek(self.start)
            for done in range(0, self.num_bytes, num_bytes):
                yield stream.read(min(num_bytes, self.num_bytes - done))


@dataclass(frozen=True)
class NewTensor:
    """A tensor to be written: its bytes come as a stream."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    num_bytes: int
    content: Iterable[bytes]


class Checkpoint:
    """The safetensors files of a model folder.

    `tensors` has every tensor by name, `files` the shards in order, `index` the parsed index file if there is one.

    Raises:
        ModelError: the folder has no safetensors weights, or one of its files is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.index: dict[str, Any] | None = None
        try:
            if (folder / INDEX).is_file():
                self.index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
                self.files = [folder / name for name in sorted(set(self.index["weight_map"].values()))]
            else:
                self.files = [folder / SINGLE]
            self.tensors = {tensor.name: tensor for file in self.files for tensor in stored_tensors(file)}
        except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
            raise ModelError(
                f"the weights in {folder} cannot be read: {error}. Expected is {SINGLE}, or the shards that {INDEX} "
                "names; save the model with `save_pretrained`, which writes them."
            ) from error

    def find(self, name: str, prefix: str) -> StoredTensor | None:
        """A tensor by its name in the network, with or without the `prefix` that some checkpoints leave out."""
        return self.tensors.get(name) or self.tensors.get(name.removeprefix(f"{prefix}."))


def stored_tensors(file: Path) -> list[StoredTensor]:
    """The tensors of one file, in the order of their bytes."""
    header, start = _header(file)
    found = [
        StoredTensor(file, name, entry["dtype"], tuple(entry["shape"]), start + begin, end - begin)
        for name, entry in header.items()
        if name != "__metadata__"
        for begin, end in [entry["data_offsets"]]
    ]
    return sorted(found, key=lambda tensor: tensor.start)


def metadata_of(file: Path) -> dict[str, str]:
    return _header(file)[0].get("__metadata__", {})


def read_rows(tensor: StoredTensor, rows: Sequence[int]) -> Tensor:
    """Some rows of a table, `[len(rows), width]`, in the table's own type; nothing else is read."""
    with safe_open(tensor.file, framework="pt") as file:
        table = file.get_slice(tensor.name)
        return torch.cat([table[row : row + 1] for row in rows])


def mean_row(tensor: StoredTensor, left_out: Sequence[int]) -> Tensor:
    """The mean of a table's rows but for some, float64 `[width]` (a vector counts as a table of width 1)."""
    width, dtype = _width(tensor), DTYPES[tensor.dtype]
    total, count, outside = torch.zeros(width, dtype=torch.float64), 0, torch.tensor(sorted(left_out))
    for piece in tensor.read(_row_bytes(tensor) * max(1, CHUNK_BYTES // _row_bytes(tensor))):
        rows = torch.frombuffer(bytearray(piece), dtype=dtype).view(-1, width)
        kept = torch.isin(torch.arange(count, count + len(rows)), outside, invert=True)
        total += rows[kept].double().sum(dim=0)
        count += len(rows)
    return total / (count - sum(row < count for row in left_out))


def with_rows(tensor: StoredTensor, rows: dict[int, Tensor], dtype: torch.dtype, name: str | None = None) -> NewTensor:
    """A table with some rows replaced or, past its end, added, in another precision if need be."""
    old, new = tensor.shape[0], max(tensor.shape[0], max(rows) + 1)
    stored, width = DTYPES[tensor.dtype], _width(tensor)

    def content() -> Iterator[bytes]:
        row = 0
        for piece in tensor.read(_row_bytes(tensor) * max(1, CHUNK_BYTES // _row_bytes(tensor))):
            changed = torch.frombuffer(bytearray(piece), dtype=stored).view(-1, width).to(dtype)
            for at in rows.keys() & range(row, row + len(changed)):
                changed[at - row] = rows[at].to(dtype)
            yield _bytes(changed)
            row += len(changed)
        for at in range(old, new):  # a tokenizer may skip ids
            yield _bytes(rows.get(at, torch.zeros(width)).to(dtype))

    num_bytes = new * width * dtype.itemsize
    return NewTensor(name or tensor.name, NAMES[dtype], (new, *tensor.shape[1:]), num_bytes, content())


def copied(tensor: StoredTensor) -> NewTensor:
    return NewTensor(tensor.name, tensor.dtype, tensor.shape, tensor.num_bytes, tensor.read())


def write_safetensors(file: Path, tensors: Sequence[NewTensor], metadata: dict[str, str]) -> None:
    """Write tensors one after the other; never more than a piece of one is in memory."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [end, end + tensor.num_bytes],
        }
        end += tensor.num_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            for piece in tensor.content:
                stream.write(piece)


def _header(file: Path) -> tuple[dict[str, Any], int]:
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        return json.loads(stream.read(length)), 8 + length


def _width(tensor: StoredTensor) -> int:
    return tensor.shape[1] if len(tensor.shape) == 2 else 1


def _row_bytes(tensor: StoredTensor) -> int:
    return _width(tensor) * DTYPES[tensor.dtype].itemsize


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()
