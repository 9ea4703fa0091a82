"""Whether a model folder that was just written holds, as transformers loads it, the network that it was made from.

No network is built here either: `place_weights` says which stored tensors are its embeddings and what it lacks, and
only the tables that were written are read again. All other tensors are linked, or copied with their names and shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from embedgrad_cli.errors import ModelError, UserError
from embedgrad_cli.exports.artifact_source import Source
from embedgrad_cli.exports.placed_weights import PlacedWeights, place_weights
from embedgrad_cli.exports.weight_files import DTYPES, Checkpoint, StoredTensor, read_rows, same_rows


def check_written(source: Source, ids: Sequence[int], silent: Sequence[int], folder: Path) -> None:
    """Compare what transformers would load from the folder with what it would load from the source.

    Args:
        ids: the tokens whose input rows are the prompt's vectors. silent: those whose output rows are new.

    Raises:
        UserError: they differ in more than the prompt.
    """
    network_class = type(source.model.network)
    try:
        config = type(source.model.network.config).from_pretrained(folder)
        with torch.device("meta"):
            outline = network_class(config)
        checkpoint = Checkpoint(folder)
        placed = place_weights(checkpoint, outline)
    except ModelError as error:
        raise _refusal(source, str(error)) from error
    faults = [*_other_keys(source, checkpoint, placed), *_other_rows(source, placed, ids, silent)]
    if faults:
        raise _refusal(source, f"its {'; its '.join(faults)}.")


def _other_keys(source: Source, checkpoint: Checkpoint, placed: PlacedWeights) -> list[str]:
    faults = []
    if more := (placed.unfilled - source.placed.unfilled) | (placed.unused - source.placed.unused):
        faults.append(f"tensors {', '.join(sorted(more)[:3])} would not be loaded")
    expected = {name: tensor.shape for name, tensor in source.checkpoint.tensors.items()}
    found = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
    changed = {source.placed.table_name, *source.placed.head_names, *([placed.bias.name] if placed.bias else [])}
    if other := {name for name in expected.keys() | found if expected.get(name) != found.get(name)} - changed:
        faults.append(f"tensors {', '.join(sorted(other)[:3])} are not those of the source")
    return faults


def _other_rows(source: Source, placed: PlacedWeights, ids: Sequence[int], silent: Sequence[int]) -> list[str]:
    vectors = (source.artifact.prompt.vectors.detach() / source.scale).to(DTYPES[placed.table.dtype])
    old_head, new_head = source.placed.head or source.table, placed.head
    checks = {
        "embedding table differs": same_rows(source.table, placed.table, ids),
        "prompt's vectors differ": torch.equal(read_rows(placed.table, ids), vectors),
        "output rows differ": new_head is not None and same_rows(old_head, new_head, silent),
        "output bias differs": _same(source.placed.bias, placed.bias, silent),
    }
    return [fault for fault, is_same in checks.items() if not is_same]


def _same(old: StoredTensor | None, new: StoredTensor | None, silent: Sequence[int]) -> bool:
    return old is new if old is None or new is None else same_rows(old, new, silent)


def _refusal(source: Source, fault: str) -> UserError:
    return UserError(
        f"model.path={source.model.path} cannot be written as a folder that loads as the same network: {fault} Use "
        "format=embeds, or format=peft."
    )
