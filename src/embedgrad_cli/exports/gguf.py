"""`format=gguf`: one file for llama.cpp and Ollama, in which the optimised prompt is a few added tokens.

It holds what `format=model` puts into a folder: the vectors are rows of the input embeddings, control tokens name them,
and the chat template writes these into an ordinary conversation. Control tokens are read from a rendered conversation,
and are not printed. Why none of them is ever answered is said in `exports.model`; llama.cpp is told so besides
(`suppress_tokens`). Numbers are the folder's, bit for bit; of a model that is a GGUF file, they are that file's, packed
as they are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from embedgrad_cli.config.schema import ExportConfig
from embedgrad_cli.core.prompt.artifact import Artifact
from embedgrad_cli.errors import UserError
from embedgrad_cli.exports.artifact_source import Source, open_source
from embedgrad_cli.exports.llamacpp.copied import PLAIN, add_metadata, as_in, copied_tensors, reader_of
from embedgrad_cli.exports.llamacpp.modelfile import modelfile
from embedgrad_cli.exports.llamacpp.quantizer import Quantizer, find_quantizer
from embedgrad_cli.exports.llamacpp.tokenizer import Vocabulary, pre_tokenizer_of, vocabulary_of
from embedgrad_cli.exports.llamacpp.weights import (
    TABLE,
    WrittenTensor,
    add_settings,
    check_architecture,
    file_tensors,
    write_tensors,
)
from embedgrad_cli.exports.model import changed_tensors, check_space, never_answered, token_names, tokenizer_with_prompt

if TYPE_CHECKING:
    from gguf import GGUFReader

FILE = "model.gguf"
MODELFILE = "Modelfile"


def write(artifact: Artifact, config: ExportConfig, folder: Path) -> str:
    """Write the file, and a Modelfile for Ollama. Returns: what is in the folder.

    Raises:
        ArtifactError: the model is not the one that the artifact was made for.
        UserError: the package `gguf` is missing, or the program that packs weights, the model is of a kind that is not
            written here, the prompt cannot be written as tokens of it, or there is no room.
    """
    check_installed()
    quantizer = find_quantizer(config)
    source = open_source(config.artifact, config.model)
    check_architecture(source)
    pre_tokenizer = pre_tokenizer_of(source)
    tokenizer = tokenizer_with_prompt(source)
    ids = tokenizer.convert_tokens_to_ids(token_names(source))
    vocabulary = vocabulary_of(source, tokenizer, pre_tokenizer, max(source.table.shape[0], max(ids) + 1))
    content = _content_of(source, vocabulary, ids)
    if quantizer is not None:
        _refuse_packed(content, quantizer, source)
    check_space(sum(tensor.num_bytes for tensor in content.tensors), folder)
    _write_file(source, content, folder / FILE)
    if quantizer is not None:
        quantizer.apply(folder / FILE, content.table_type)
    ollama, left_out = modelfile(FILE, tokenizer, vocabulary, artifact.metadata.config.task.stop or [])
    if ollama is not None:
        (folder / MODELFILE).write_text(ollama, encoding="utf-8")
    return f"{FILE} with {len(ids)} added tokens, {_sizes(folder, content, quantizer)}; " + (
        left_out or f"a {MODELFILE} for Ollama"
    )


def check_installed() -> None:
    """
    Raises:
        UserError: the package that writes these files is not installed.
    """
    if find_spec("gguf") is None:
        raise UserError(
            "format=gguf needs the package gguf, which is not installed: pip install 'embedgrad[gguf]'. Or write "
            "format=model, and give that folder to llama.cpp's convert_hf_to_gguf.py."
        )


@dataclass(frozen=True)
class Content:
    """What the file is to hold. `silent` are the tokens that no answer may hold, `source` the GGUF file it is copied
    from, if there is one."""

    vocabulary: Vocabulary
    tensors: Sequence[WrittenTensor]
    silent: Sequence[int]
    source: GGUFReader | None

    @property
    def table_type(self) -> str:
        return next(tensor.dtype for tensor in self.tensors if tensor.name == TABLE)

    @property
    def packings(self) -> list[str]:
        """The types in which tensors are packed; none if all numbers stand for themselves."""
        return sorted({tensor.dtype for tensor in self.tensors} - set(PLAIN))


def _content_of(source: Source, vocabulary: Vocabulary, ids: Sequence[int]) -> Content:
    silent, changed = never_answered(source, ids), changed_tensors(source, ids)
    reader = reader_of(source)
    if reader is None:
        return Content(vocabulary, file_tensors(source, changed), silent, None)
    tensors = copied_tensors(source, reader, changed, silent)
    return Content(as_in(reader, vocabulary, ids), tensors, silent, reader)


def _write_file(source: Source, content: Content, file: Path) -> None:
    from gguf import GGML_QUANT_VERSION, GGUFWriter, LlamaFileType

    config = source.model.network.config
    writer = GGUFWriter(None, config.model_type)
    content.vocabulary.add_to(writer, content.silent)
    if content.source is not None:
        writer.add_vocab_size(len(content.vocabulary.texts))
        add_metadata(writer, content.source)
    else:
        kinds = {"F32": LlamaFileType.ALL_F32, "F16": LlamaFileType.MOSTLY_F16, "BF16": LlamaFileType.MOSTLY_BF16}
        tables = [tensor.dtype for tensor in content.tensors if len(tensor.shape) > 1]
        writer.add_type("model")
        writer.add_name(Path(source.model.path).name)
        writer.add_file_type(kinds[max(tables, key=tables.count)])
        writer.add_quantization_version(GGML_QUANT_VERSION)
        add_settings(writer, config, len(content.vocabulary.texts))
    write_tensors(writer, content.tensors, file)


def _refuse_packed(content: Content, quantizer: Quantizer, source: Source) -> None:
    """
    Raises:
        UserError: the source's weights are quantised already.
    """
    if content.packings:
        raise UserError(
            f"quantize={quantizer.kind}: the weights of model.path={source.model.path} are quantised already "
            f"({', '.join(content.packings)}), and packing them again would lose more. Leave quantize out: they are "
            "copied as they are."
        )


def _sizes(folder: Path, content: Content, quantizer: Quantizer | None) -> str:
    size = f"{(folder / FILE).stat().st_size:,} bytes"
    kinds = [quantizer.kind] if quantizer else content.packings
    return f"{size} ({', '.join(kinds)}, the input embeddings {content.table_type})" if kinds else size
