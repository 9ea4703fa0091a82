"""Weights and settings of a network as a GGUF file has them, for the architectures that were tested in llama.cpp.

The names of tensors are the `gguf` package's. What it does not know stands here: the order of rows in which llama.cpp
wants a Llama's queries and keys, and which settings it takes from the file.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from embedgrad_cli.errors import UserError
from embedgrad_cli.exports.artifact_source import Source
from embedgrad_cli.exports.weight_files import ChangedTensor, StoredTensor

if TYPE_CHECKING:
    from gguf import GGUFWriter

ARCHITECTURES = ("llama", "qwen2", "qwen3")  # as transformers and llama.cpp both name them
WITHOUT_EFFECT = re.compile(r"rotary_emb\.inv_freq$")  # older checkpoints hold what is computed from the settings
QUERIES_AND_KEYS = re.compile(r"\.([qk])_proj\.(weight|bias)$")
TABLE, OUTPUT, ROPE_FACTORS = "token_embd.weight", "output.weight", "rope_freqs.weight"


class WrittenTensor(Protocol):
    """A tensor as a GGUF file has it; `dtype` is the format's name of a type, `shape` counts numbers."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def num_bytes(self) -> int: ...
    def load(self) -> np.ndarray[Any, Any]: ...


@dataclass(frozen=True)
class FileTensor:
    """A tensor of numbers that are not packed: a stored one, or one that is computed here."""

    name: str
    content: StoredTensor | ChangedTensor | Tensor
    heads: int | None = None  # its rows are of so many heads, and have to stand in llama.cpp's order

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.content.shape)

    @property
    def dtype(self) -> str:
        """The file's own type: vectors are float32 there, and nothing is rounded."""
        is_table = len(self.shape) > 1
        return self.content.dtype if is_table and not isinstance(self.content, Tensor) else "F32"

    @property
    def num_bytes(self) -> int:
        return int(np.prod(self.shape)) * (4 if self.dtype == "F32" else 2)

    def load(self) -> np.ndarray[Any, Any]:
        """The numbers as bytes, `[…, bytes of a row]`."""
        tensor = self.content if isinstance(self.content, Tensor) else self.content.load()
        if self.heads is not None:
            tensor = paired(tensor, self.heads)
        if self.dtype == "F32":
            tensor = tensor.float()
        return tensor.contiguous().view(torch.uint8).numpy()


def check_architecture(source: Source) -> None:
    """
    Raises:
        UserError: the network is of another architecture than those that were tested, or computes in a way that
            llama.cpp would not be told of.
    """
    config = source.model.network.config
    if config.model_type not in ARCHITECTURES:
        raise _refusal(source, f"the architecture {config.model_type!r} was not tried in llama.cpp")
    rope, layers = rope_of(config), set(getattr(config, "layer_types", None) or ["full_attention"])
    if config.hidden_act != "silu":
        raise _refusal(source, f"its activation is {config.hidden_act!r}, not 'silu'")
    if rope["rope_type"] not in ("default", "llama3") or rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise _refusal(source, f"its rotary embedding is of the kind {rope['rope_type']!r}")
    if layers != {"full_attention"}:
        raise _refusal(source, f"its attention is {' and '.join(sorted(layers))}")
    if kinds := {tensor.dtype for tensor in source.checkpoint.tensors.values()} - {"F32", "F16", "BF16"}:
        raise _refusal(source, f"its weights are stored as {' and '.join(sorted(kinds))}")


def add_settings(writer: GGUFWriter, config: Any, num_rows: int) -> None:
    """The settings of a network that llama.cpp reads; `num_rows` is how many rows its tables have."""
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    for add in (writer.add_key_length, writer.add_value_length, writer.add_rope_dimension_count):
        add(head_size(config))
    writer.add_rope_freq_base(rope_of(config)["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(num_rows)


def file_tensors(source: Source, changed: Mapping[str, Sequence[ChangedTensor]]) -> list[FileTensor]:
    """All tensors of the file, the changed ones in the place of the stored.

    Raises:
        UserError: the checkpoint has a tensor that this architecture of llama.cpp does not know.
    """
    stored = [one for name, kept in source.checkpoint.tensors.items() for one in changed.get(name, [kept])]
    found = under_their_names(source, stored)
    config = source.model.network.config
    if rope_of(config)["rope_type"] == "llama3":
        found.append(FileTensor(ROPE_FACTORS, _rope_factors(config)))
    return found


def under_their_names(source: Source, tensors: Iterable[StoredTensor | ChangedTensor]) -> list[FileTensor]:
    """Tensors of a checkpoint as they are called in the file; those without effect are left out.

    Raises:
        UserError: this architecture of llama.cpp does not know one.
    """
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    config = source.model.network.config
    architecture = next(key for key, name in MODEL_ARCH_NAMES.items() if name == config.model_type)
    names = get_tensor_name_map(architecture, config.num_hidden_layers)
    found = []
    for tensor in tensors:
        if WITHOUT_EFFECT.search(tensor.name):
            continue
        name = names.get_name(tensor.name, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise _refusal(source, f"it has a tensor {tensor.name}, which has no name there")
        found.append(FileTensor(name, tensor, _heads(tensor.name, config)))
    return found


def write_tensors(writer: GGUFWriter, tensors: Sequence[WrittenTensor], file: Path) -> None:
    """Write what the writer was given, and then the tensors, of which one at a time is in memory."""
    from gguf import GGMLQuantizationType

    for tensor in tensors:
        kind = GGMLQuantizationType[tensor.dtype]
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.num_bytes, raw_dtype=kind)
    try:
        writer.write_header_to_file(file)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in tensors:
            writer.write_tensor_data(tensor.load())
    except OSError as error:
        if error.errno is None:  # numpy counts the bytes that it wrote, and leaves out why they are too few
            raise OSError(errno.EIO, "the disk is full, or files may not be so large") from error
        raise
    finally:
        writer.close()


def paired(rows: Tensor, heads: int) -> Tensor:
    """A Llama's queries or keys in llama.cpp's order, `[heads * head_size, …]`.

    The rotary embedding turns pairs of numbers. transformers pairs the halves of a head, llama.cpp neighbours; the
    converter of llama.cpp moves the rows like this.
    """
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def head_size(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def rope_of(config: Any) -> dict[str, Any]:
    """The settings of the rotary embedding; transformers 4 has them in two places."""
    settings = getattr(config, "rope_parameters", None)
    if settings is None:
        settings = {"rope_theta": config.rope_theta, **(getattr(config, "rope_scaling", None) or {})}
    return {"rope_type": settings.get("type", "default"), **settings}


def _rope_factors(config: Any) -> Tensor:
    """By how much Llama 3 slows each rotation, `[head_size / 2]`: llama.cpp takes this as a tensor."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    slowed, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    size = head_size(config)
    plain = 1.0 / rope_of(config)["rope_theta"] ** (torch.arange(0, size, 2, dtype=torch.float32) / size)
    return plain / slowed


def _heads(name: str, config: Any) -> int | None:
    found = QUERIES_AND_KEYS.search(name) if config.model_type == "llama" else None
    if found is None:
        return None
    return int(config.num_attention_heads if found[1] == "q" else config.num_key_value_heads)


def _refusal(source: Source, why: str) -> UserError:
    return UserError(
        f"model.path={source.model.path} cannot be written by format=gguf: {why}. It writes "
        f"{', '.join(ARCHITECTURES)}, which were tested. Write format=model, and give that folder to llama.cpp's own "
        "convert_hf_to_gguf.py, which knows more."
    )
