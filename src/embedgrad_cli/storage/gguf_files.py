"""Which GGUF file a `model.path` names, and its hash. What is in the file is read in `core.model.unpacked_gguf`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from embedgrad_cli.storage.record import Record

SUFFIX = ".gguf"


@dataclass(frozen=True, kw_only=True)
class GgufRecord(Record):
    """The GGUF file that a model's weights were unpacked from: sha256 of its bytes, and llama.cpp's name of its
    quantisation (Q4_K_M)."""

    sha256: str
    quantization: str


def named_gguf(path: str) -> Path | None:
    """The GGUF file that a path names: itself, or the one in a folder without safetensors. None: it names none."""
    place = Path(path).expanduser()
    if place.suffix.lower() == SUFFIX and place.is_file():
        return place
    found = gguf_in(place)
    return found[0] if len(found) == 1 else None


def gguf_in(folder: Path) -> list[Path]:
    """The GGUF files that a folder's weights may be: all it has, and none if it has safetensors."""
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return []
    return sorted(file for file in folder.iterdir() if file.suffix.lower() == SUFFIX and file.is_file())


def sha256_of(file: Path) -> str:
    """sha256 of all bytes, as hexadecimal. Read once per process, unless the file changes."""
    status = file.stat()
    return _sha256(file.resolve(), status.st_size, status.st_mtime_ns)


@lru_cache
def _sha256(file: Path, size: int, modified: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
