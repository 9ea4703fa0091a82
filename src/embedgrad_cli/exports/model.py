"""`format=model`: a model folder in which the optimised prompt is a few added tokens.

The vectors are rows of the input embeddings, special tokens name them, and the chat template writes these into an
ordinary conversation. So any engine that serves the model's architecture serves the prompt, with its ordinary chat API.

**Why an added token is never generated.** Its output row is the *mean* of all other output rows, so its logit is the
mean of all other logits, which never exceeds their maximum; greedy decoding takes the maximum, and a cap on the logits
(Gemma 2) keeps their order. When sampling, its probability is below the average 1 / vocabulary size (a geometric mean
does not exceed the arithmetic one), usually by many orders of magnitude. A row of zeros would not do: its logit is 0,
and a model whose logits are all negative (GPT-2's are, most of the time) would answer with it. Where a model uses its
embeddings as output rows too, the two are separated, or the vectors would be output rows. `suppress_tokens` in
generation_config.json forbids the tokens outright in engines that read it (transformers does, vLLM does not).
"""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from torch import Tensor

from embedgrad_cli.config.schema import ExportConfig
from embedgrad_cli.core.prompt.artifact import Artifact
from embedgrad_cli.errors import UserError
from embedgrad_cli.exports import chat_template
from embedgrad_cli.exports.artifact_source import Source, is_tied, open_source, template_json
from embedgrad_cli.exports.slot_text import Edges, fill_slots, find_edges
from embedgrad_cli.exports.weight_files import (
    DTYPES,
    INDEX,
    NAMES,
    ChangedTensor,
    StoredTensor,
    mean_row,
    metadata_of,
    stored_tensors,
    write_safetensors,
)
from embedgrad_cli.storage.files import write_json
from embedgrad_cli.storage.record import Json

CARRIED_FILES = ("LICENSE*", "NOTICE*", "*.py")  # beside weights, configs and tokenizer


def write(artifact: Artifact, config: ExportConfig, folder: Path) -> str:
    """Write the model folder. Returns: what is in it.

    Raises:
        ArtifactError: the model is not the one that the artifact was made for.
        UserError: the prompt cannot be written as tokens of this model, or there is no room for the weights.
    """
    source = open_source(config.artifact, config.model)
    settings = model_settings(source)
    tokenizer = tokenizer_with_prompt(source)
    names = token_names(source)
    ids = tokenizer.convert_tokens_to_ids(names)
    _check_space(source, folder)
    tokenizer.save_pretrained(folder)
    linked, written = write_weights(source, ids, folder, config.weights == "link")
    _write_configs(source, settings, ids, folder)
    for pattern in CARRIED_FILES:
        for file in source.folder.glob(pattern):
            shutil.copyfile(file, folder / file.name)
    write_json(folder / "embedgrad.json", _description(source, names, ids))
    return (
        f"a model with {len(ids)} added tokens in {NAMES[table_dtype(source)]} (rounding moves the vectors by at most "
        f"{_rounding(source):.0e} of their length); {written} weight file(s) written, {linked} linked or copied"
    )


def token_names(source: Source) -> list[str]:
    return [f"<|embedgrad_{row}|>" for row in range(source.artifact.prompt.slots.num_tokens)]


def tokenizer_with_prompt(source: Source) -> Any:
    """The model's tokenizer with the prompt's tokens and a chat template that writes them into a conversation.

    Raises:
        UserError: the tokens are there already, or do not stand exactly where the seed's stood.
    """
    tokenizer = copy.deepcopy(source.model.tokenizer)
    names = token_names(source)
    if set(names) & tokenizer.get_vocab().keys():
        raise UserError(
            f"model.path={source.model.path} has the token {names[0]} already, so it is itself an export of embedgrad. "
            "Export from the model that the artifact was made for."
        )
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in names], special_tokens=True)
    texts = ["".join(slot) for slot in _per_slot(source, names)]

    def is_exact(edges: Edges) -> bool:
        turns = fill_slots(source, texts, edges)
        if turns is None:
            return False
        if source.model.is_chat:
            carrier = chat_template.carrying(source.model.tokenizer.chat_template, turns)
        else:
            carrier = chat_template.plain(begin_of_text(source), turns[0])
        tokenizer.chat_template = chat_template.without_blank(carrier, source.prompt_template.blank)
        return renders_probes(source, tokenizer, tokenizer.convert_tokens_to_ids(names))

    if find_edges(source, is_exact) is None:
        raise UserError(
            "this tokenizer splits the text beside the prompt differently once added tokens stand in the prompt's "
            "place, so format=model would not be exact; use format=embeds."
        )
    return tokenizer


def begin_of_text(source: Source) -> str:
    """What the tokenizer itself puts in front of a plain text, as text."""
    plain, whole = (source.model.tokenizer("x", add_special_tokens=adds)["input_ids"] for adds in (False, True))
    return source.model.tokenizer.decode(whole[: len(whole) - len(plain)]) if whole != plain else ""


def renders_probes(source: Source, tokenizer: Any, ids: Sequence[int], start: int = 0) -> bool:
    """Whether a tokenizer's own chat template gives the tokens of training, from `start` on, with `ids` in the slots.

    Asked for conversations of one user turn with different queries.
    """
    for query, example in source.probes:
        messages = [{"role": "user", "content": query}]
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        found = tokenizer(rendered, add_special_tokens=False)["input_ids"]
        if found != [token if token >= 0 else ids[-1 - token] for token in example.tokens[start:]]:
            return False
    return True


def write_weights(source: Source, ids: Sequence[int], folder: Path, link: bool) -> tuple[int, int]:
    """Write the shards that hold an embedding, link or copy the others.

    Returns: how many were linked or copied, and how many written.
    """
    changed = _changed_tensors(source, ids)
    linked = 0
    for file in source.checkpoint.files:
        tensors = stored_tensors(file)
        if not any(tensor.name in changed for tensor in tensors):
            _link_or_copy(file, folder / file.name, link)
            linked += 1
            continue
        new = [one for tensor in tensors for one in changed.get(tensor.name, [tensor])]
        write_safetensors(folder / file.name, new, metadata_of(file))
    if source.checkpoint.index is not None:
        write_json(folder / INDEX, _new_index(source, folder))
    return linked, len(source.checkpoint.files) - linked


def _changed_tensors(source: Source, ids: Sequence[int]) -> dict[str, list[ChangedTensor]]:
    """What takes the place of stored tensors, by their names."""
    table, head, dtype = source.table, source.head, NAMES[table_dtype(source)]
    vectors = dict(zip(ids, source.artifact.prompt.vectors.detach() / source.scale, strict=True))
    changed = {table.name: [ChangedTensor(table, vectors, table.name, dtype)]}
    if head is None:  # tied: the output rows are the table's, and are written beside it under their own name
        name = _head_name(source)
        changed[name] = []  # some checkpoints store the tied rows a second time
        changed[table.name].append(ChangedTensor(table, _mean_rows(table, ids), name, dtype))
    else:
        changed[head.name] = [ChangedTensor(head, _mean_rows(head, ids), head.name, dtype)]
    bias = source.checkpoint.tensors.get(_head_name(source).removesuffix("weight") + "bias")
    if bias is not None:
        changed[bias.name] = [ChangedTensor(bias, _mean_rows(bias, ids), bias.name, dtype)]
    return changed


def table_dtype(source: Source) -> torch.dtype:
    """The tables keep their precision or, where the model computes in more, get that: the vectors are float32."""
    return torch.promote_types(DTYPES[source.table.dtype], source.dtype)


def _mean_rows(tensor: StoredTensor, ids: Sequence[int]) -> dict[int, Tensor]:
    mean = mean_row(tensor, ids)
    return dict.fromkeys(ids, mean)


def _head_name(source: Source) -> str:
    network = source.model.network
    head = network.get_output_embeddings()
    return next(name for name, module in network.named_modules() if module is head) + ".weight"


def _new_index(source: Source, folder: Path) -> Json:
    """The index with a separated head in it. The sizes are those of the files as they are now."""
    names = [file.name for file in source.checkpoint.files]
    tensors = [tensor for name in names for tensor in stored_tensors(folder / name)]
    total = sum(tensor.load().nbytes for tensor in tensors)
    weight_map = {tensor.name: tensor.file.name for tensor in tensors}
    return {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}


def _link_or_copy(file: Path, target: Path, link: bool) -> None:
    """A hard link to the file itself (the hub's cache holds symbolic ones); a copy where the system allows none."""
    original = file.resolve()
    if link:
        try:
            os.link(original, target)
            return
        except OSError:  # another file system, or one without links
            pass
    shutil.copyfile(original, target)


def model_settings(source: Source) -> Json:
    """The model's config.json.

    Raises:
        UserError: it has parts for text and images, whose sizes and ties stand in several places.
    """
    settings = json.loads((source.folder / "config.json").read_text(encoding="utf-8"))
    if "vocab_size" not in settings:
        raise UserError(
            f"model.path={source.model.path} is a model of several parts (its config.json has no vocab_size of its "
            "own), which format=model does not write; use format=embeds."
        )
    return settings


def _write_configs(source: Source, settings: Json, ids: Sequence[int], folder: Path) -> None:
    rows = max(source.table.shape[0], max(ids) + 1)
    write_json(folder / "config.json", {**settings, "vocab_size": rows, "tie_word_embeddings": False})
    file = source.folder / "generation_config.json"
    generation = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    # Answers end where they ended in training and evaluation: a base model's own end of text is often another token.
    generation["eos_token_id"] = sorted(source.model.end_ids)
    generation["suppress_tokens"] = sorted({*(generation.get("suppress_tokens") or []), *ids})
    write_json(folder / "generation_config.json", generation)


def _description(source: Source, names: list[str], ids: Sequence[int]) -> Json:
    metadata = source.artifact.metadata
    return {
        "format": "model",
        "tokens": dict(zip(names, ids, strict=True)),
        "model": metadata.model.to_json(),
        "template": template_json(source.artifact),
        "task": metadata.task,
        "stop": metadata.config.task.stop,  # transformers would take it from no file without being given a tokenizer
        "split_hash": metadata.split_hash,
        "metrics": metadata.metrics.to_json(),
        "libraries": metadata.libraries,
        "seed_text": metadata.seed.text,
    }


def _check_space(source: Source, folder: Path) -> None:
    """Only what is certainly written is counted: the small files, and those that hold an embedding.

    Raises:
        UserError: they do not fit on the disk.
    """
    changed = {source.table.file, *([source.head.file] if source.head else [])}
    table_bytes = math.prod(source.table.shape) * table_dtype(source).itemsize
    small = [file for file in source.folder.glob("*.json") if file.is_file()]
    needed = sum(file.stat().st_size for file in [*changed, *small]) + (table_bytes if is_tied(source.model) else 0)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"output_dir: there is no space left for the export: it needs {needed:,} bytes, and {free:,} are free in "
            f"{folder.parent}. Give an output_dir on another disk; nothing was left behind."
        )


def _rounding(source: Source) -> float:
    """Largest distance between a vector and the row that stands for it, over the vector's length."""
    vectors = source.artifact.prompt.vectors.detach() / source.scale
    rounded = vectors.to(table_dtype(source)).float()
    return ((vectors - rounded).norm(dim=1) / vectors.norm(dim=1).clamp(min=1e-12)).max().item()


def _per_slot(source: Source, names: list[str]) -> list[list[str]]:
    rest = iter(names)
    return [[next(rest) for _ in ids] for ids in source.artifact.prompt.slots.ids]
