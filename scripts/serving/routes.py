"""The ways from an export to an answer. Each takes an export's folder and queries and returns token ids."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch

from embedgrad_cli.exports.embeds import embed_query
from embedgrad_cli.exports.source import open_source

AT_ONCE = 8  # requests in flight


def max_new_tokens(folder: Path) -> int:
    return json.loads((folder / "embeds/request.json").read_text())["max_tokens"]


def transformers(folder: Path, queries: Sequence[str], tokens: int) -> list[list[int]]:
    """`generate` on the exported model folder."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype="auto")
    return _generate(model, folder / "model", queries, max_new_tokens=tokens)


def peft(folder: Path, queries: Sequence[str], tokens: int) -> list[list[int]]:
    """`generate` on the model as it is, with the adapter."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(_model_folder(folder), dtype="auto")
    model = PeftModel.from_pretrained(base, folder / "peft")
    return _generate(model, folder / "peft", queries, max_new_tokens=tokens)


def chat(folder: Path, queries: Sequence[str], url: str) -> list[list[int]]:
    """vLLM's chat API with ordinary conversations."""
    tokens = max_new_tokens(folder)

    def request(query: str) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": query}], "max_tokens": tokens}

    return _ask(folder, queries, f"{url}/v1/chat/completions", request)


def parts(folder: Path, queries: Sequence[str], url: str) -> list[list[int]]:
    """vLLM's chat API with the vectors as content parts, sent by the exported client."""
    client = _client(folder)
    return _ask(folder, queries, f"{url}/v1/chat/completions", lambda query: client.body(folder / "embeds", query))


def completions(folder: Path, queries: Sequence[str], url: str) -> list[list[int]]:
    """vLLM's completions API with whole conversations as embeddings."""
    client, source, tokens = _client(folder), open_source(folder / "prompt.safetensors"), max_new_tokens(folder)
    end_ids = sorted(source.model.end_ids)

    def request(query: str) -> dict[str, Any]:
        embeds = client.encode(embed_query(source, query))
        return {"prompt_embeds": embeds, "max_tokens": tokens, "stop_token_ids": end_ids}

    return _ask(folder, queries, f"{url}/v1/completions", request)


@torch.no_grad()
def _generate(model: Any, tokenizer_folder: Path, queries: Sequence[str], **settings: Any) -> list[list[int]]:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(tokenizer_folder)
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": query}], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        for query in queries
    ]
    answers: list[list[int]] = [[] for _ in queries]
    # Only prompts of one length together: PEFT would put padding between its virtual tokens and the text.
    for length in {len(prompt) for prompt in prompts}:
        rows = [row for row, prompt in enumerate(prompts) if len(prompt) == length]
        ids = torch.tensor([prompts[row] for row in rows])
        output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, **settings)
        for row, tokens in zip(rows, output[:, length:].tolist(), strict=True):
            answers[row] = tokens
    return answers


def _ask(folder: Path, queries: Sequence[str], url: str, request: Callable[[str], dict[str, Any]]) -> list[list[int]]:
    """Greedy answers of a server, several requests at once, as they come in real use."""
    post = _client(folder).post

    def ask(query: str) -> list[int]:
        return post(url, {**request(query), "temperature": 0, "return_token_ids": True})["choices"][0]["token_ids"]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(ask, queries))


def _client(folder: Path) -> Any:
    """The client of the export itself, as a module."""
    spec = spec_from_file_location("client", folder / "embeds/client.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(folder / "embeds/client.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _model_folder(folder: Path) -> Path:
    return open_source(folder / "prompt.safetensors").folder
