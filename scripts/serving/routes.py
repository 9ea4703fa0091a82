"""The ways from an export to an answer. Each takes an export's folder and queries and returns token ids."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import embedgrad_cli
from embedgrad_cli.core.prompt.artifact import load_artifact
from embedgrad_cli.exports import vllm_client
from embedgrad_cli.exports.artifact_source import open_source
from embedgrad_cli.exports.embeds import embed_query
from serving.server import vllm_offline

AT_ONCE = 8  # requests in flight


def max_new_tokens(folder: Path) -> int:
    return load_artifact(folder / "prompt.safetensors").metadata.config.task.max_new_tokens


def transformers(folder: Path, queries: Sequence[str]) -> list[list[int]]:
    """`generate` on the exported model folder."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype="auto")
    return _generate(model, folder / "model", queries, max_new_tokens(folder))


def peft(folder: Path, queries: Sequence[str]) -> list[list[int]]:
    """`generate` on the model as it is, with the adapter."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(_model_folder(folder), dtype="auto")
    model = PeftModel.from_pretrained(base, folder / "peft")
    return _generate(model, folder / "peft", queries, max_new_tokens(folder))


def chat(folder: Path, queries: Sequence[str], url: str) -> list[list[int]]:
    """vLLM's chat API with ordinary conversations."""
    tokens = max_new_tokens(folder)

    def request(query: str) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": query}], "max_tokens": tokens}

    return _ask(queries, f"{url}/v1/chat/completions", request)


def parts(folder: Path, queries: Sequence[str], url: str) -> list[list[int]]:
    """vLLM's chat API with the vectors as content parts, sent by the exported client."""
    client = _client(folder)
    return _ask(queries, f"{url}/v1/chat/completions", lambda query: client.body(folder / "embeds", query))


def completions(folder: Path, queries: Sequence[str], url: str) -> list[list[int]]:
    """vLLM's completions API with whole conversations as embeddings."""
    source, tokens = open_source(folder / "prompt.safetensors"), max_new_tokens(folder)
    end_ids = sorted(source.model.end_ids)

    def request(query: str) -> dict[str, Any]:
        embeds = vllm_client.encode(embed_query(source, query))
        return {"prompt_embeds": embeds, "max_tokens": tokens, "stop_token_ids": end_ids}

    return _ask(queries, f"{url}/v1/completions", request)


def offline(
    folders: Mapping[str, Path], queries: Mapping[str, Sequence[str]], python: Path, work: Path
) -> dict[str, list[list[int]]]:
    """`vllm.LLM` on what `Prompt.to_vllm` gives, for several prompts of one model with one engine."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model_folder = _model_folder(next(iter(folders.values())))
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    tensors = {}
    for name, folder in folders.items():
        conversations = [[{"role": "user", "content": query}] for query in queries[name]]
        requests = embedgrad_cli.load(folder / "prompt.safetensors").to_vllm(model, tokenizer, conversations)
        tensors.update({f"{name}/{i}": request["prompt_embeds"] for i, request in enumerate(requests)})
    files = work / "offline.safetensors", work / "offline.json"
    save_file(tensors, files[0])
    vllm_offline(python, model_folder, *files, max(map(max_new_tokens, folders.values())))
    answers = json.loads(files[1].read_text())
    return {name: [answers[f"{name}/{i}"] for i in range(len(queries[name]))] for name in folders}


@torch.no_grad()
def _generate(model: Any, tokenizer_folder: Path, queries: Sequence[str], tokens: int) -> list[list[int]]:
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
        mask = torch.ones_like(ids)
        output = model.generate(input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=tokens)
        for row, answer in zip(rows, output[:, length:].tolist(), strict=True):
            answers[row] = answer
    return answers


def _ask(queries: Sequence[str], url: str, request: Callable[[str], dict[str, Any]]) -> list[list[int]]:
    """Greedy answers of a server, several requests at once, as they come in real use."""

    def ask(query: str) -> list[int]:
        body = {**request(query), "temperature": 0, "return_token_ids": True}
        return vllm_client.post(url, body)["choices"][0]["token_ids"]

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
