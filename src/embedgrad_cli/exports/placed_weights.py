"""Which stored tensors become a network's embedding table and output layer, as transformers itself decides.

On the way into a network transformers renames a checkpoint's tensors, joins some, and ties others: GPT-NeoX's
`embed_out` is its `lm_head`, and a table that is stored twice counts as tied only if both are equal. So it is asked
instead of imitated: it loads a state dict in which tensors of an embedding's shape are mapped from their files and all
others have a shape but no numbers. What then lies in the network's embedding modules is known by its address in memory.
Nothing else is read, so the model may be larger than memory.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from embedgrad_cli.errors import ModelError, first_line
from embedgrad_cli.exports.weight_files import Checkpoint, StoredTensor


@dataclass(frozen=True)
class PlacedWeights:
    """Where a network has its embeddings from.

    `head` and `bias` are those of the output layer (`head` is None where it is the table). `table_name` and `head_name`
    are what input and output rows are called in this checkpoint once they are stored apart; `head_names` are all names
    under which transformers would look for output rows. `unfilled` are parameters that the checkpoint has no tensor of
    the right shape for, `unused` its tensors without a parameter.
    """

    table: StoredTensor
    head: StoredTensor | None
    bias: StoredTensor | None
    table_name: str
    head_name: str
    head_names: frozenset[str]
    unfilled: frozenset[str]
    unused: frozenset[str]


def place_weights(checkpoint: Checkpoint, outline: Any) -> PlacedWeights:
    """Let transformers place a checkpoint in a network.

    Args:
        outline: the network without weights, a `PreTrainedModel`; it is not changed.

    Raises:
        ModelError: the checkpoint cannot be placed, or has no tensor for the embeddings.
    """
    size, width = outline.get_input_embeddings().weight.shape
    candidates = {
        name: _Candidate(stored, stored.load().as_subclass(_AsStored))
        for name, stored in checkpoint.tensors.items()
        if stored.shape in ((size, width), (size,))
    }
    kind = type(outline).__name__
    try:
        network, report = _shell(type(outline)).from_pretrained(
            None,
            config=_unquantised(outline.config),
            state_dict={name: _content(stored, candidates) for name, stored in checkpoint.tensors.items()},
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:  # whatever the model's own code raises; no list of it exists
        reason = first_line(error)
        raise ModelError(
            f"the weights in {checkpoint.folder} cannot be placed in a {kind}: {reason} Save the model "
            "with `save_pretrained`, unquantised."
        ) from error
    inputs, outputs = network.get_input_embeddings(), network.get_output_embeddings()
    table, head = (_origin(module, "weight", candidates.values()) for module in (inputs, outputs))
    if table is None or head is None:
        missing = "embedding table" if table is None else "output layer"
        raise ModelError(
            f"the {missing} of a {kind} is not in the weights in {checkpoint.folder} as one tensor. Save the model "
            "with `save_pretrained`, unquantised."
        )
    is_tied = head == table
    head_names = {_stored_name(network, outputs): None, _name(network, outputs): None} if is_tied else {head.name: None}
    return PlacedWeights(
        table,
        None if is_tied else head,
        _origin(outputs, "bias", candidates.values()),
        _stored_name(network, inputs) if table.name in head_names else table.name,
        next(iter(head_names)),
        frozenset(head_names),
        frozenset(report["missing_keys"]) | {key for key, *_ in report["mismatched_keys"]},
        frozenset(report["unexpected_keys"]),
    )


class _AsStored(Tensor):
    """A tensor that a network takes in as it is, neither moved nor cast: so it keeps its address, if it has one."""

    def to(self, *_: Any, **__: Any) -> Tensor:  # type: ignore[override]
        return self


@dataclass(frozen=True)
class _Candidate:
    """A tensor that has an embedding's shape, in the file and in memory."""

    stored: StoredTensor
    tensor: Tensor


def _content(stored: StoredTensor, candidates: dict[str, _Candidate]) -> Tensor:
    if stored.name in candidates:
        return candidates[stored.name].tensor
    return torch.empty(stored.shape, device="meta").as_subclass(_AsStored)


def _shell(network_class: Any) -> Any:
    """The class without its initialisation of what a checkpoint lacks: nobody computes with it.

    It keeps its name, by which transformers knows how to rename tensors.
    """
    body = {"__module__": network_class.__module__, "_initialize_missing_keys": lambda *_, **__: None}
    return type(network_class.__name__, (network_class,), body)


def _unquantised(config: Any) -> Any:
    """Quantised layers hold no embedding, and building them may need a GPU or another library."""
    config = copy.deepcopy(config)
    for part in (config, config.get_text_config()):
        if hasattr(part, "quantization_config"):
            del part.quantization_config
    return config


def _origin(module: Any, parameter: str, candidates: Iterable[_Candidate]) -> StoredTensor | None:
    """The stored tensor that a module's parameter is."""
    placed = getattr(module, parameter, None)
    if placed is None:
        return None
    return next((one.stored for one in candidates if one.tensor.data_ptr() == placed.data_ptr()), None)


def _name(network: Any, module: Any) -> str:
    """What the network calls a module's weight."""
    return next(name for name, other in network.named_modules() if other is module) + ".weight"


def _stored_name(network: Any, module: Any) -> str:
    """What `save_pretrained` calls a module's weight."""
    from transformers.core_model_loading import revert_weight_conversion

    network._weight_conversions = None  # those of the family, also where this checkpoint had nothing to rename
    return next(iter(revert_weight_conversion(network, {_name(network, module): torch.zeros(1)})))
