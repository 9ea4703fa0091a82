"""`format=embeds`: the prompt's vectors for servers that take embeddings, as vLLM does with `--enable-prompt-embeds`.

vLLM takes them in two ways. Chat: a message's content is a list of parts, and a part of the type `prompt_embeds` has
the slot's vectors; the server renders and embeds everything else (`request.json`, sent by `client.py`). Completions:
the client embeds the whole rendered conversation (`embed_query`).

Files hold safetensors only. vLLM's protocol wants each tensor as base64 of what `torch.save` writes, so that is made in
the client at the moment of sending.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from safetensors.torch import save
from tokenizers import AddedToken
from torch import Tensor

from embedgrad_cli.config.fields import QUERY_PLACE
from embedgrad_cli.config.schema import ExportConfig
from embedgrad_cli.core.model.pinned_template import original_of, pin
from embedgrad_cli.core.prompt.artifact import Artifact
from embedgrad_cli.core.text.marked_tokens import Example
from embedgrad_cli.exports.artifact_source import Source, open_source, template_json
from embedgrad_cli.exports.slot_text import Edges, Turn, fill_slots, find_edges
from embedgrad_cli.storage.files import write_atomically, write_json
from embedgrad_cli.storage.record import Json

PLACEHOLDER = "<prompt_embeds>"  # vLLM's own special token, which stands for one part
SEPARATOR = "\n"  # vLLM joins the parts of a message with it
ANOTHER_DAY = date(1970, 1, 1)  # than that of training
NO_LMCACHE = "Serve them without LMCache, which takes other vectors for the same (docs/serving.md)"
CLIENT = Path(__file__).with_name("vllm_client.py")


def write(artifact: Artifact, config: ExportConfig, folder: Path) -> str:
    """Write vectors, their description and, where the chat form is exact, request and client.

    Returns: what is in the folder.

    Raises:
        ArtifactError: the model is not the one that the artifact was made for.
    """
    source = open_source(config.artifact, config.model)
    metadata, prompt = artifact.metadata, artifact.prompt
    vectors = prompt.split(prompt.vectors.detach())
    tensors = {f"prompt_embeds.{i}": v.contiguous() for i, v in enumerate(vectors)}
    write_atomically(folder / "prompt_embeds.safetensors", save(tensors))
    write_json(
        folder / "prompt_embeds.json",
        {
            "format": "embeds",
            "model": metadata.model.to_json(),
            "template": template_json(artifact),
            "seed_text": metadata.seed.text,
            "slots": [
                {"tensor": name, "shape": list(tensor.shape), "seed_token_ids": ids}
                for (name, tensor), ids in zip(tensors.items(), metadata.seed.token_ids, strict=True)
            ],
        },
    )
    written = f"{len(tensors)} slot(s) of vectors"
    messages = chat_messages(source, list(tensors))
    if messages is None:
        return (
            f"{written}; no request.json, because vLLM's chat API would not render this prompt exactly: use "
            f"completions. {NO_LMCACHE}"
        )
    write_json(folder / "request.json", request(source, messages))
    write_atomically(folder / "client.py", CLIENT.read_bytes())
    return f"{written}, request.json for vLLM's chat API and client.py. {NO_LMCACHE}"


def embed_query(source: Source, query: str) -> Tensor:
    """The whole conversation around a query as embeddings, for vLLM's completions API.

    source = open_source("prompt.safetensors")
    prompt_embeds = embed_query(source, "How many apples are left?")  # float32 [num_tokens, hidden_size]

    Raises:
        ArtifactError: the query merges with the prompt.
        DataError: the query does not fit the model's context.
    """
    return source.embed(source.encode(query).tokens)


def request(source: Source, messages: list[Json]) -> Json:
    """The body of a chat request; `client.py` fills in the query and, for the tensors' names, their data."""
    task = source.artifact.metadata.config.task
    told = source.artifact.metadata.config.model.chat_template_kwargs
    return {
        "messages": messages,
        **({"chat_template_kwargs": told} if told else {}),
        "temperature": 0,
        "repetition_penalty": 1.0,  # else a server takes the one in the model's generation_config.json
        "max_tokens": task.max_new_tokens,
        "stop_token_ids": sorted(source.model.end_ids),
        **({"stop": task.stop} if task.stop else {}),
    }


def chat_messages(source: Source, names: Sequence[str]) -> list[Json] | None:
    """The template's messages with a `prompt_embeds` part in each slot, or None if vLLM would not render them exactly.

    The server renders them with the model's own chat template, on any day, and ends with its generation prompt. It puts
    a line break between two parts, so beside a slot the text must have one, or end.
    """
    if not source.model.is_chat:
        return None
    tokenizer = copy.deepcopy(source.model.tokenizer)
    told = source.artifact.metadata.config.model.chat_template_kwargs
    tokenizer.chat_template = pin(original_of(tokenizer.chat_template), told, ANOTHER_DAY)
    tokenizer.add_tokens([AddedToken(PLACEHOLDER, special=True, normalized=False)], special_tokens=True)
    placeholder = tokenizer.convert_tokens_to_ids(PLACEHOLDER)

    def is_exact(edges: Edges) -> bool:
        turns = fill_slots(source, [PLACEHOLDER] * len(names), edges)
        return turns is not None and all(
            _ids(tokenizer, turns, query) == _one_per_slot(source, example, placeholder)
            for query, example in source.probes
        )

    edges = find_edges(source, is_exact)
    turns = None if edges is None else fill_slots(source, [PLACEHOLDER] * len(names), edges)
    if turns is None:
        return None
    rest = iter(names)
    contents = [_parts(turn.content(QUERY_PLACE), rest) for turn in turns]
    if any(content is None for content in contents):
        return None
    return [{"role": turn.role, "content": content} for turn, content in zip(turns, contents, strict=True)]


def _ids(tokenizer: Any, turns: Sequence[Turn], query: str) -> list[int]:
    messages = [{"role": turn.role, "content": turn.content(query)} for turn in turns]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer(rendered, add_special_tokens=False)["input_ids"]


def _one_per_slot(source: Source, example: Example, placeholder: int) -> list[int]:
    """The tokens of training with one placeholder for each slot, which vLLM then expands."""
    firsts, row = set(), 0
    for ids in source.artifact.prompt.slots.ids:
        firsts.add(-1 - row)
        row += len(ids)
    return [placeholder if token < 0 else token for token in example.tokens if token >= 0 or token in firsts]


def _parts(content: str, names: Iterator[str]) -> str | list[dict[str, str]] | None:
    """A message's content as parts that vLLM joins to the same text, or None if there are none."""
    literals = content.split(PLACEHOLDER)
    if len(literals) == 1:
        return content
    parts: list[dict[str, str]] = []
    for number, literal in enumerate(literals):
        is_first, is_last = number == 0, number == len(literals) - 1
        if not is_first:
            parts.append({"type": "prompt_embeds", "data": next(names)})
        if literal == ("" if is_first or is_last else SEPARATOR):
            continue
        if not (is_first or literal.startswith(SEPARATOR)) or not (is_last or literal.endswith(SEPARATOR)):
            return None
        parts.append({"type": "text", "text": literal[not is_first : len(literal) - (not is_last)]})
    return parts
