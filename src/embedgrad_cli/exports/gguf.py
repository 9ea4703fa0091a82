"""`format=gguf`: one file for llama.cpp and Ollama, in which the optimised prompt is a few added tokens.

It holds what `format=model` puts into a folder: the vectors are rows of the input embeddings, control tokens name them,
and the chat template writes these into an ordinary conversation. Control tokens are read from a rendered conversation,
and are not printed. Why none of them is ever answered is said in `exports.model`; llama.cpp is told so besides
(`suppress_tokens`). Numbers are the folder's, bit for bit.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from embedgrad_cli.config.schema import ExportConfig
from embedgrad_cli.core.prompt.artifact import Artifact
from embedgrad_cli.errors import UserError
from embedgrad_cli.exports.artifact_source import Source, open_source
from embedgrad_cli.exports.llamacpp.modelfile import modelfile
from embedgrad_cli.exports.llamacpp.tokenizer import Vocabulary, pre_tokenizer_of, vocabulary_of
from embedgrad_cli.exports.llamacpp.weights import (
    FileTensor,
    add_settings,
    check_architecture,
    file_tensors,
    write_tensors,
)
from embedgrad_cli.exports.model import changed_tensors, never_answered, token_names, tokenizer_with_prompt

FILE = "model.gguf"
MODELFILE = "Modelfile"


def write(artifact: Artifact, config: ExportConfig, folder: Path) -> str:
    """Write the file, and a Modelfile for Ollama. Returns: what is in the folder.

    Raises:
        ArtifactError: the model is not the one that the artifact was made for.
        UserError: the package `gguf` is missing, the model is of a kind that is not written here, the prompt cannot be
            written as tokens of it, or there is no room.
    """
    check_installed()
    source = open_source(config.artifact, config.model)
    check_architecture(source)
    pre_tokenizer = pre_tokenizer_of(source)
    tokenizer = tokenizer_with_prompt(source)
    ids = tokenizer.convert_tokens_to_ids(token_names(source))
    num_rows = max(source.table.shape[0], max(ids) + 1)
    vocabulary = vocabulary_of(source, tokenizer, pre_tokenizer, num_rows)
    tensors = file_tensors(source, changed_tensors(source, ids))
    _check_space(tensors, folder)
    _write_file(source, vocabulary, tensors, never_answered(source, ids), folder / FILE)
    ollama, left_out = modelfile(FILE, tokenizer, vocabulary, artifact.metadata.config.task.stop or [])
    if ollama is not None:
        (folder / MODELFILE).write_text(ollama, encoding="utf-8")
    size = (folder / FILE).stat().st_size
    return f"{FILE} with {len(ids)} added tokens, {size:,} bytes; " + (left_out or f"a {MODELFILE} for Ollama")


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


def _write_file(
    source: Source, vocabulary: Vocabulary, tensors: Sequence[FileTensor], silent: Sequence[int], file: Path
) -> None:
    from gguf import GGML_QUANT_VERSION, GGUFWriter, LlamaFileType

    config = source.model.network.config
    kinds = {"F32": LlamaFileType.ALL_F32, "F16": LlamaFileType.MOSTLY_F16, "BF16": LlamaFileType.MOSTLY_BF16}
    tables = [tensor.dtype for tensor in tensors if len(tensor.shape) > 1]
    writer = GGUFWriter(None, config.model_type)
    writer.add_type("model")
    writer.add_name(Path(source.model.path).name)
    writer.add_file_type(kinds[max(tables, key=tables.count)])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    add_settings(writer, config, len(vocabulary.texts))
    vocabulary.add_to(writer, silent)
    write_tensors(writer, tensors, file)


def _check_space(tensors: Sequence[FileTensor], folder: Path) -> None:
    """
    Raises:
        UserError: the tensors do not fit on the disk.
    """
    needed, free = sum(tensor.num_bytes for tensor in tensors), shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"output_dir: there is no space left for the export: it needs {needed:,} bytes, and {free:,} are free in "
            f"{folder.parent}. Give an output_dir on another disk; nothing was left behind."
        )
