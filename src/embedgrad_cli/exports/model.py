"""`format=model`: a model folder in which the optimised prompt is a few added tokens.

The vectors are rows of the input embeddings, special tokens name them, and the chat template writes these into an
ordinary conversation. So any engine that serves the model's architecture serves the prompt, with its ordinary chat API.

**Why an added token is never generated.** Its output row is the *mean* of all other output rows, so its logit is the
mean of all other logits, which never exceeds their maximum; greedy decoding takes the maximum, or the first of several,
and an added token is none of the first. A cap on the logits (Gemma 2) keeps their order, and rounding moves this row no
more than the others, which are stored in the same type. When sampling, its probability is below the average 1 /
vocabulary size (a geometric mean does not exceed the arithmetic one), usually by many orders of magnitude. A row of
zeros would not do: its logit is 0, and a model whose logits are all negative (GPT-2's are, most of the time) would
answer with it. The same holds for tokens that a tokenizer has and its model has no row for, such as a pad token that
was added to GPT-2's: their rows lie in front of the prompt's. Where a model uses its embeddings as output rows too, the
two are separated, or the vectors would be output rows. `suppress_tokens` in generation_config.json forbids all these
tokens outright in engines that read it (transformers does, vLLM does not).
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
from embedgrad_cli.core.model.greedy import greedy_settings
from embedgrad_cli.core.prompt.artifact import Artifact
from embedgrad_cli.errors import UserError
from embedgrad_cli.exports import chat_template
from embedgrad_cli.exports.artifact_source import Source, open_source, template_json
from embedgrad_cli.exports.model_check import check_written
from embedgrad_cli.exports.slot_text import Edges, fill_slots, find_edges
from embedgrad_cli.exports.weight_files import (
    DTYPES,
    INDEX,
    NAMES,
    SINGLE,
    ChangedTensor,
    StoredTensor,
    mean_row,
    metadata_of,
    stored_tensors,
    write_safetensors,
)
from embedgrad_cli.storage.files import write_json
from embedgrad_cli.storage.record import Json

GENERATION = "generation_config.json"
# Beside weights, configs and tokenizer.
CARRIED_FILES = ("LICENSE*", "NOTICE*", "*.py", "*preprocessor_config.json", "processor_config.json")


def write(artifact: Artifact, config: ExportConfig, folder: Path) -> str:
    """Write the model folder. Returns: what is in it.

    Raises:
        ArtifactError: the model is not the one that the artifact was made for.
        UserError: the prompt cannot be written as tokens of this model, or there is no room for the weights.
    """
    source = open_source(config.artifact, config.model)
    tokenizer = tokenizer_with_prompt(source)
    names = token_names(source)
    ids = tokenizer.convert_tokens_to_ids(names)
    check_space(_num_bytes(source), folder)
    tokenizer.save_pretrained(folder)
    linked, written = write_weights(source, ids, folder, config.weights == "link")
    _write_configs(source, ids, folder)
    for pattern in CARRIED_FILES:
        for file in source.folder.glob(pattern):
            shutil.copyfile(file, folder / file.name)
    check_written(source, ids, never_answered(source, ids), folder)
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
        tokenizer.chat_template = chat_template.up_to_answer(carrier, source.prompt_template)
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
    changed = changed_tensors(source, ids)
    linked = 0
    for file in source.checkpoint.files:
        tensors = stored_tensors(file)
        target = folder / (SINGLE if source.checkpoint.index is None else file.name)
        if not any(tensor.name in changed for tensor in tensors):
            _link_or_copy(file, target, link)
            linked += 1
            continue
        new = [one for tensor in tensors for one in changed.get(tensor.name, [tensor])]
        write_safetensors(target, new, metadata_of(file))
    if source.checkpoint.index is not None:
        write_json(folder / INDEX, _new_index(source, folder))
    return linked, len(source.checkpoint.files) - linked


def never_answered(source: Source, ids: Sequence[int]) -> list[int]:
    """The tokens that no answer may hold: the prompt's, and those of the tokenizer's that the model has no row for."""
    return sorted({*ids, *range(source.table.shape[0], max(ids) + 1)})


def changed_tensors(source: Source, ids: Sequence[int]) -> dict[str, list[ChangedTensor]]:
    """What takes the place of stored tensors, by their names."""
    placed, table, dtype = source.placed, source.table, NAMES[table_dtype(source)]
    silent = never_answered(source, ids)
    vectors = dict(zip(ids, source.artifact.prompt.vectors.detach() / source.scale, strict=True))
    changed = dict[str, list[ChangedTensor]]()
    inputs = ChangedTensor(table, vectors, placed.table_name, dtype)
    head = placed.head or table
    outputs = ChangedTensor(head, _mean_rows(head, silent), placed.head_name, dtype)
    if placed.head is None:  # tied: the output rows are the table's, and are written beside it under their own name
        changed |= {name: [] for name in placed.head_names}  # some checkpoints store the tied rows a second time
        changed[table.name] = [inputs, outputs]
    else:
        changed |= {table.name: [inputs], head.name: [outputs]}
    if placed.bias is not None:
        bias = placed.bias
        changed[bias.name] = [ChangedTensor(bias, _mean_rows(bias, silent), bias.name, dtype)]
    return changed


def table_dtype(source: Source) -> torch.dtype:
    """The tables keep their precision or, where the model computes in more, get that: the vectors are float32."""
    return torch.promote_types(DTYPES[source.table.dtype], source.dtype)


def _mean_rows(tensor: StoredTensor, ids: Sequence[int]) -> dict[int, Tensor]:
    mean = mean_row(tensor, ids)
    return dict.fromkeys(ids, mean)


def _new_index(source: Source, folder: Path) -> Json:
    """The index with a separated head in it. The sizes are those of the files as they are now."""
    names = sorted({file.name for file in source.checkpoint.files})
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


def model_settings(source: Source, ids: Sequence[int]) -> Json:
    """The model's config.json with as many rows as the tables have, and output rows of their own.

    In a model of several parts, for text and images say, these stand in the part for text, or in both places.
    """
    settings: Json = json.loads((source.folder / "config.json").read_text(encoding="utf-8"))
    settings.pop("transformers_weights", None)  # the files are written under their usual names
    settings.pop("task_specific_params", None)  # older pipelines take settings of generation from there
    sizes = {"vocab_size": max(source.table.shape[0], max(ids) + 1), "tie_word_embeddings": False}
    config = source.model.network.config
    text = next((name for name in config.sub_configs if getattr(config, name) is config.get_text_config()), None)
    if text is None:
        return {**settings, **sizes}
    whole = sizes if "vocab_size" in settings else {"tie_word_embeddings": False}
    return {**settings, **whole, text: {**settings.get(text, {}), **sizes}}


def _write_configs(source: Source, ids: Sequence[int], folder: Path) -> None:
    write_json(folder / "config.json", model_settings(source, ids))
    write_json(folder / GENERATION, generation_settings(source, suppressed=never_answered(source, ids)))


def generation_settings(source: Source, suppressed: Sequence[int] = ()) -> Json:
    """The content of `generation_config.json` with which answers are those of evaluation; see `greedy_settings`."""
    file = source.folder / GENERATION
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return greedy_settings(settings, source.model.end_ids, suppressed)


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


def check_space(needed: int, folder: Path) -> None:
    """
    Raises:
        UserError: so many bytes do not fit on the disk of an export's folder.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"output_dir: there is no space left for the export: it needs {needed:,} bytes, and {free:,} are free in "
            f"{folder.parent}. Give an output_dir on another disk; nothing was left behind."
        )


def _num_bytes(source: Source) -> int:
    """Of what is certainly written: the small files, and those that hold an embedding."""
    head = source.placed.head
    changed = {source.table.file, *([head.file] if head else [])}
    table_bytes = math.prod(source.table.shape) * table_dtype(source).itemsize
    small = [file for file in source.folder.glob("*.json") if file.is_file()]
    return sum(file.stat().st_size for file in [*changed, *small]) + (0 if head else table_bytes)


def _rounding(source: Source) -> float:
    """Largest distance between a vector and the row that stands for it, over the vector's length."""
    vectors = source.artifact.prompt.vectors.detach() / source.scale
    rounded = vectors.to(table_dtype(source)).float()
    return ((vectors - rounded).norm(dim=1) / vectors.norm(dim=1).clamp(min=1e-12)).max().item()


def _per_slot(source: Source, names: list[str]) -> list[list[str]]:
    rest = iter(names)
    return [[next(rest) for _ in ids] for ids in source.artifact.prompt.slots.ids]
