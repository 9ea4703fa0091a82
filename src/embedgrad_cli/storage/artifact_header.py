"""Reads what an artifact says about itself, without torch."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from embedgrad_cli.errors import ArtifactError
from embedgrad_cli.guards.typed_settings import typed
from embedgrad_cli.storage.artifact_metadata import ArtifactMetadata
from embedgrad_cli.storage.record import Json

FORMAT_VERSION = 2  # 1: version 0.1.0, with the worked examples in the template
LENGTH_BYTES = 8  # a safetensors file opens with its header's length, little-endian
LARGEST_HEADER = 100_000_000  # what safetensors itself accepts


def read_header(path: str | Path) -> ArtifactMetadata:
    """Read the metadata of an artifact: the JSON under its key `embedgrad`.

    Raises:
        ArtifactError: the file is missing, truncated, no safetensors file, not one of embedgrad's, or newer than this
            version reads; or a key of the metadata is not what it should be.
    """
    file = Path(path).expanduser()
    header, stored, size = _read_safetensors_header(file)
    needed = size + max((t["data_offsets"][1] for key, t in header.items() if key != "__metadata__"), default=0)
    if stored < needed:
        raise _error(file, f"it is truncated, {stored:,} of {needed:,} bytes are there. Copy it again.")
    labels = header.get("__metadata__")
    text = labels.get("embedgrad") if isinstance(labels, dict) else None
    if text is None:
        raise _error(
            file,
            "it is a safetensors file, but not an embedgrad artifact: its metadata has no key 'embedgrad'. "
            "Give the prompt.safetensors of an `embedgrad optimize` run.",
        )
    try:
        metadata = json.loads(text)
        version = metadata["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _error(
            file, "its metadata under the key 'embedgrad' is damaged. Copy it again, or optimise again."
        ) from None
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise _error(
            file,
            f"it has format version {version}, and this embedgrad reads up to {FORMAT_VERSION}. Upgrade: "
            "pip install -U embedgrad.",
        )
    return ArtifactMetadata.from_json(metadata, f"artifact={file}", ArtifactError)


def _read_safetensors_header(file: Path) -> tuple[Json, int, int]:
    """Returns the JSON header, the file's size, and the offset at which tensor data begins."""
    if file.is_dir():
        raise _error(file, f"it is a folder. Give the file in it: {typed('artifact', file / 'prompt.safetensors')}.")
    try:
        stored = file.stat().st_size
        with file.open("rb") as stream:
            prefix = stream.read(LENGTH_BYTES)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == LENGTH_BYTES else None
            raw = stream.read(length) if length is not None and length <= LARGEST_HEADER else b""
    except FileNotFoundError:
        raise _error(file, "there is no such file. `embedgrad optimize` writes it as prompt.safetensors.") from None
    except OSError as error:
        raise _error(file, f"it cannot be read: {error.strerror or error}.") from None
    if length is None:
        raise _error(file, f"it holds {stored} bytes only: it is empty or truncated. Copy it again.")
    if raw[:1] == b"{" and len(raw) < length:
        raise _error(file, f"it is truncated: it ends within its header, after {stored:,} bytes. Copy it again.")
    try:
        header = json.loads(raw)
        well_formed = isinstance(header, dict) and all(
            isinstance(entry["data_offsets"][1], int) for key, entry in header.items() if key != "__metadata__"
        )
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        well_formed = False
    if not well_formed:
        raise _error(file, "it is not a safetensors file. Give the prompt.safetensors of an `embedgrad optimize` run.")
    return header, stored, LENGTH_BYTES + length


def _error(file: Path, what: str) -> ArtifactError:
    return ArtifactError(f"artifact={file} cannot be read: {what}")
