"""llama.cpp's own server on this machine's CPU, and what it makes of conversations."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serving.server import free_port, running, wait_for

Messages = Sequence[Mapping[str, str]]


class RequestRefused(Exception):
    """The server answers with an error."""


@contextmanager
def llama_server(binary: Path, model: Path, log: Path, *flags: str) -> Iterator[str]:
    """Start llama-server, wait until it answers, and stop it in the end. One thread answers one request at a time.

    Attention is the plain one, and its cache float32: its flash attention moves log-likelihoods by a thousandth.

    Yields: the address, http://127.0.0.1:PORT.

    Raises:
        RuntimeError: the server ended, or did not answer in time; its log says why.
    """
    port = free_port()
    command = [str(binary), "--model", str(model), "--host", "127.0.0.1", "--port", str(port), "--ctx-size", "1024"]
    command += ["--parallel", "1", "--threads", "1", "--no-webui", "--flash-attn", "off"]
    command += ["--cache-type-k", "f32", "--cache-type-v", "f32"]
    with running([*command, *flags], log) as process:
        url = f"http://127.0.0.1:{port}"
        wait_for(process, f"{url}/health", log)
        yield url


def version_of(binary: Path) -> str:
    done = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=True)
    return (done.stdout + done.stderr).strip().splitlines()[0]


def rendered(url: str, messages: Messages) -> str:
    """The conversation as text, by the server's own Jinja."""
    return str(_post(f"{url}/apply-template", {"messages": list(messages)})["prompt"])


def special_texts(url: str) -> dict[str, str]:
    """The texts of the tokens that chat templates know as `bos_token` and `eos_token`."""
    with urllib.request.urlopen(f"{url}/props", timeout=60) as answer:
        properties = json.load(answer)
    return {name: properties[name] for name in ("bos_token", "eos_token")}


def tokens_of(url: str, messages: Messages) -> list[int]:
    """Token ids of a conversation, as the chat API has them: what begins a text is added, special tokens are read."""
    request = {"content": rendered(url, messages), "add_special": True, "parse_special": True}
    return list(_post(f"{url}/tokenize", request)["tokens"])


def chat(url: str, query: str, max_tokens: int) -> list[int]:
    """The greedy answer to one turn of the user, as token ids."""
    request = {
        "messages": [{"role": "user", "content": query}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "logprobs": True,  # with them come the ids
    }
    choice = _post(f"{url}/v1/chat/completions", request)["choices"][0]
    return [token["id"] for token in choice["logprobs"]["content"]]


def _post(url: str, body: Mapping[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise RequestRefused(error.read().decode(errors="replace")) from error
