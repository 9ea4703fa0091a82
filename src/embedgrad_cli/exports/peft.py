"""`format=peft`: a prompt-tuning adapter for the PEFT library.

PEFT puts its virtual tokens in front of everything else. So all that stands before the end of the last slot, the
conversation's own tokens and the prompt's, becomes virtual tokens; that is exact wherever the prompt stands before the
query. The tokenizer in the folder renders the rest, so that `apply_chat_template` and `generate` go on as usual.
"""

from __future__ import annotations

import copy
import sys
from inspect import signature
from pathlib import Path
from typing import Any

from safetensors.torch import save
from transformers import Cache

from embedgrad_cli.config.schema import ExportConfig
from embedgrad_cli.core.passes.plain import CACHES
from embedgrad_cli.core.prompt.artifact import Artifact
from embedgrad_cli.errors import UserError
from embedgrad_cli.exports import chat_template
from embedgrad_cli.exports.artifact_source import Source, open_source
from embedgrad_cli.exports.model import GENERATION, begin_of_text, generation_settings, renders_probes
from embedgrad_cli.exports.slot_text import Edges, fill_slots, find_edges
from embedgrad_cli.storage.files import write_atomically, write_json
from embedgrad_cli.storage.record import Json

MARK = "\ue020"  # from Unicode's private use area: no text has it


def write(artifact: Artifact, config: ExportConfig, folder: Path) -> str:
    """Write adapter, tokenizer and settings of generation. Returns: what is in the folder.

    Raises:
        ArtifactError: the model is not the one that the artifact was made for.
        UserError: the prompt does not stand before the query, or PEFT cannot generate with such a model.
    """
    source = open_source(config.artifact, config.model)
    _check_cache(source)
    prefix = shared_prefix(source)
    tokenizer_after_prefix(source, len(prefix)).save_pretrained(folder)
    vectors = source.embed(prefix)
    write_atomically(folder / "adapter_model.safetensors", save({"prompt_embeddings": vectors}, {"format": "pt"}))
    write_json(folder / "adapter_config.json", _adapter_config(source, len(prefix)))
    write_json(folder / GENERATION, generation_settings(source))
    return (
        f"a PEFT adapter of {len(prefix)} virtual tokens, {source.artifact.prompt.slots.num_tokens} of them optimised"
    )


def _check_cache(source: Source) -> None:
    """Refuse models whose answers PEFT spoils: without a word it puts the virtual tokens in front of every new token.

    It does so until `past_key_values` say that tokens have been read. Recurrent models keep their state under another
    name, and a family with a class of its own for its cache (MiniMax) may count otherwise.

    Raises:
        UserError: this is such a model.
    """
    kind = type(source.model.network)
    names, module = signature(kind.forward).parameters, sys.modules[kind.__module__]
    has_own_class = any(
        isinstance(value, type) and issubclass(value, Cache) and value.__module__ == kind.__module__
        for value in vars(module).values()
    )
    if has_own_class or (CACHES[0] not in names and any(name in names for name in CACHES)):
        family = source.model.network.config.model_type
        raise UserError(
            f"model.path={source.model.path}: PEFT does not know the cache of a {family} model and would generate "
            "other answers; use format=model or format=embeds."
        )


def shared_prefix(source: Source) -> tuple[int, ...]:
    """The tokens up to the end of the last slot, which every conversation begins with.

    Raises:
        UserError: the query stands before that.
    """
    last = source.artifact.prompt.slots.num_tokens
    prefixes = {example.tokens[: example.tokens.index(-last) + 1] for _, example in source.probes}
    if len(prefixes) > 1:
        raise UserError(
            "format=peft puts vectors only in front of the text, and this prompt stands behind the query; use "
            "format=model or format=embeds."
        )
    return prefixes.pop()


def tokenizer_after_prefix(source: Source, length: int) -> Any:
    """A tokenizer whose chat template renders what follows the first `length` tokens of a conversation.

    Raises:
        UserError: the text after the prompt has other tokens when it stands alone.
    """
    tokenizer = copy.deepcopy(source.model.tokenizer)
    rendered = source.prompt_template.render(source.probes[0][0])
    texts = [rendered.text[begin:end] for begin, end in rendered.slots]
    texts[-1] += MARK
    before = rendered.text[: rendered.slots[-1][1]]

    def is_exact(edges: Edges) -> bool:
        cut = [(0, 0)] * (len(edges) - 1) + [(0, edges[-1][1])]  # what the last slot's tokens cover beside the seed
        turns = fill_slots(source, texts, cut)
        if turns is None:
            return False
        if source.model.is_chat:
            carrier = chat_template.carrying(source.model.tokenizer.chat_template, turns)
            rest = chat_template.after_mark(carrier, MARK, before)
        else:
            begin = begin_of_text(source)
            rest = chat_template.after_mark(chat_template.plain(begin, turns[0]), MARK, begin + before)
        tokenizer.chat_template = chat_template.up_to_answer(rest, source.prompt_template)
        return renders_probes(source, tokenizer, [], start=length)

    if find_edges(source, is_exact) is None:
        raise UserError(
            "this tokenizer splits the text behind the prompt differently when it stands alone, so format=peft would "
            "not be exact; use format=model or format=embeds."
        )
    return tokenizer


def _adapter_config(source: Source, num_virtual_tokens: int) -> Json:
    """What `peft.PromptTuningConfig` writes. The vectors are given, so nothing is initialised."""
    config = source.model.network.config.get_text_config()
    return {
        "peft_type": "PROMPT_TUNING",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(source.folder) if source.model.gguf else source.model.path,  # PEFT reads no GGUF
        "revision": source.model.revision,
        "inference_mode": True,
        "num_virtual_tokens": num_virtual_tokens,
        "token_dim": source.table.shape[1],
        "num_transformer_submodules": 1,
        "num_attention_heads": getattr(config, "num_attention_heads", 1),
        "num_layers": config.num_hidden_layers,
        "prompt_tuning_init": "RANDOM",
    }
