"""A digest of a model's files, without loading it: whether it is still the one that a run began with.

It sees every byte of `config.json`, `generation_config.json`, Python code that may run, and weight files of up to 256
MiB. Of a larger weight file it sees the size, the header (names, types and shapes of the tensors) and 64 KiB in every
16 MiB. So further training shows, because it moves nearly all numbers; a change of a few numbers between the samples
does not. A GGUF file is read whole.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from embedgrad_cli import assets
from embedgrad_cli.config.schema import ModelConfig
from embedgrad_cli.core.model.shards import INDEX, SINGLE
from embedgrad_cli.storage.gguf_files import named_gguf, sha256_of

READ_WHOLE = 256 << 20  # bytes
BLOCK, STRIDE = 64 << 10, 16 << 20  # bytes


def model_digest(config: ModelConfig) -> str | None:
    """A sha256 of the model's files; None if they are not on this machine. Where they lie makes no difference."""
    gguf = named_gguf(config.path)
    if gguf is not None:
        return sha256_of(gguf)
    folder = _folder(config)
    if folder is None:
        return None
    code = sorted(folder.glob("*.py")) if config.trust_remote_code else []
    files = [folder / "config.json", folder / "generation_config.json", *code, *_weight_files(folder)]
    total = hashlib.sha256()
    for file in files:
        if file.is_file():
            total.update(f"{file.name} {file.stat().st_size}\n".encode() + _content_digest(file))
    return total.hexdigest()


def _folder(config: ModelConfig) -> Path | None:
    """The model's own folder, or its snapshot in the hub's cache as it is: nothing is downloaded."""
    path = Path(assets.resolve(config.path)).expanduser()
    if path.is_dir():
        return path
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(config.path, "config.json", revision=config.revision)
    return Path(found).parent if isinstance(found, str) else None


def _weight_files(folder: Path) -> list[Path]:
    """Those that transformers loads, in the order of their names."""
    if (folder / SINGLE).is_file() or not (folder / INDEX).is_file():
        return [folder / SINGLE]
    shards = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()
    return [folder / name for name in sorted(set(shards))]


def _content_digest(file: Path) -> bytes:
    size = file.stat().st_size
    with file.open("rb") as content:
        if size <= READ_WHOLE:
            return hashlib.file_digest(content, "sha256").digest()
        samples = hashlib.sha256()
        length = content.read(8)  # of the header, as safetensors begins
        samples.update(length + content.read(min(int.from_bytes(length, "little"), size)))
        for start in range(0, size, STRIDE):
            content.seek(start)
            samples.update(content.read(BLOCK))
        return samples.digest()
