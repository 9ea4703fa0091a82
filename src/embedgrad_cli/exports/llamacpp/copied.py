"""A GGUF source, of which all but the two tables is copied, byte for byte, whatever it is packed in.

The input embeddings get the prompt's rows. A GGUF tensor has one type for all of its rows, and a packed one would round
the vectors as roughly as it rounds weights; so this table is unpacked. Output rows stay packed. The tokens that no
answer may hold get a copy of one of these rows: of two tokens with the same logit the first is answered, and theirs
stands behind. The row is the one nearest to the mean of all: as a rule, of a token that the model never learned to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from embedgrad_cli.exports.artifact_source import Source
from embedgrad_cli.exports.llamacpp.tokenizer import Vocabulary
from embedgrad_cli.exports.llamacpp.weights import OUTPUT, TABLE, FileTensor, WrittenTensor, under_their_names
from embedgrad_cli.exports.weight_files import ChangedTensor, mean_row, nearest_row
from embedgrad_cli.storage.gguf_files import named_gguf

if TYPE_CHECKING:
    from gguf import GGUFReader, GGUFWriter, ReaderTensor

PLAIN = ("F32", "F16", "BF16")  # types of numbers that stand for themselves


@dataclass(frozen=True)
class CopiedTensor:
    """A tensor of a GGUF file."""

    content: ReaderTensor

    @property
    def name(self) -> str:
        return self.content.name

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(size) for size in reversed(self.content.shape))

    @property
    def dtype(self) -> str:
        return self.content.tensor_type.name

    @property
    def num_bytes(self) -> int:
        return int(self.content.n_bytes)

    def load(self) -> np.ndarray[Any, Any]:
        """Its bytes, mapped: they are read when they are used."""
        return self.content.data


@dataclass(frozen=True)
class PackedOutputs:
    """Packed output rows, and for each of some tokens the copy of one of them."""

    rows: CopiedTensor
    silent: Sequence[int]
    copied: int
    name: str = OUTPUT

    @property
    def shape(self) -> tuple[int, ...]:
        num_rows, width = self.rows.shape
        return max(num_rows, max(self.silent) + 1), width

    @property
    def dtype(self) -> str:
        return self.rows.dtype

    @property
    def num_bytes(self) -> int:
        return self.rows.num_bytes // self.rows.shape[0] * self.shape[0]

    def load(self) -> np.ndarray[Any, Any]:
        """`[rows, bytes of a row]`, in memory."""
        packed = self.rows.load()
        rows = np.empty((self.shape[0], packed.shape[1]), packed.dtype)
        rows[: len(packed)] = packed
        rows[list(self.silent)] = packed[self.copied]
        return rows


def reader_of(source: Source) -> GGUFReader | None:
    """The GGUF file that the model is in, if it is in one."""
    from gguf import GGUFReader

    file = named_gguf(source.model.path)
    return None if file is None else GGUFReader(file)


def copied_tensors(
    source: Source, reader: GGUFReader, changed: Mapping[str, Sequence[ChangedTensor]], silent: Sequence[int]
) -> list[WrittenTensor]:
    """All tensors of the file that is to be written, in the order of the source's.

    Args:
        changed: the tables, as `exports.model` makes them.
        silent: the tokens that no answer may hold.
    """
    copies = {tensor.name: CopiedTensor(tensor) for tensor in reader.tensors}
    new: dict[str, WrittenTensor] = dict(copies)
    outputs = copies.get(OUTPUT, copies[TABLE])
    for table in under_their_names(source, [one for tables in changed.values() for one in tables]):
        if table.name == OUTPUT and outputs.dtype not in PLAIN:
            new[OUTPUT] = PackedOutputs(outputs, silent, _unlearned(source, silent))
        else:
            new[table.name] = _unpacked(table, copies[TABLE].dtype if table.name == TABLE else outputs.dtype)
    return list(new.values())


def add_metadata(writer: GGUFWriter, reader: GGUFReader) -> None:
    """What the source's file says, but for what the writer has been told already."""
    from gguf import GGUFValueType

    writer.data_alignment = reader.alignment
    told = {name for part in writer.kv_data for name in part}
    for name, field in reader.fields.items():
        if name in told or name.startswith("GGUF."):  # the reader's own words for a file's first bytes
            continue
        items = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], items)


def as_in(reader: GGUFReader, vocabulary: Vocabulary, ids: Sequence[int]) -> Vocabulary:
    """A vocabulary with the file's own words for all tokens but the prompt's."""

    def merged(key: str, ours: Sequence[Any]) -> list[Any]:
        theirs = reader.fields[f"tokenizer.ggml.{key}"].contents()
        return [theirs[token] if token < len(theirs) and token not in ids else own for token, own in enumerate(ours)]

    return replace(vocabulary, texts=merged("tokens", vocabulary.texts), kinds=merged("token_type", vocabulary.kinds))


def _unlearned(source: Source, silent: Sequence[int]) -> int:
    """The row of the output layer that is nearest to the mean of all, and stands in front of all silent ones."""
    head = source.placed.head or source.table
    return nearest_row(head, mean_row(head, silent), min(silent))


def _unpacked(table: FileTensor, kind: str) -> FileTensor:
    """A table in the type that the file has it in; a packed one as float16, and bfloat16 as float32."""
    content = table.content
    if isinstance(content, ChangedTensor):
        content = replace(content, dtype="F32" if kind in ("F32", "BF16") else "F16")
    return replace(table, content=content)
