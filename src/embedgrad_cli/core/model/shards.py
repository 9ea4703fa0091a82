"""Which files hold the weights of a model folder. They are files of the folder, whatever its index says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from embedgrad_cli.errors import ModelError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def read_index(folder: Path, name: str = INDEX) -> dict[str, Any] | None:
    """The index of a sharded model, parsed, in which `weight_map` is from tensors to files; None where there is none.

    Raises:
        ModelError: the index cannot be read, or names a file that is not one of the folder's own.
    """
    file = folder / name
    if not file.is_file():
        return None
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
        shards = {str(shard) for shard in index["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{file} cannot be read: {error}. Save the model with `save_pretrained`.") from error
    strangers = sorted(shard for shard in shards if "/" in shard or "\\" in shard or shard in ("", ".", ".."))
    if strangers:
        raise ModelError(
            f"{file} names {strangers[0]!r}, which is not a file of the model's own folder. Give a folder that holds "
            "all of its weights, model.path=DIR: copy the file into it, and write its name alone into the index."
        )
    return index
