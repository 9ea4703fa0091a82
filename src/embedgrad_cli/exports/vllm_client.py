"""python client.py http://HOST:PORT "QUESTION" asks a vLLM server that was started with --enable-prompt-embeds."""

import base64
import io
import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file


def body(folder: Path, question: str) -> dict[str, Any]:
    """`request.json` with the question in its place and the vectors as vLLM takes them."""
    request = json.loads((folder / "request.json").read_text())
    tensors = load_file(folder / "prompt_embeds.safetensors")
    for message in request["messages"]:
        if isinstance(message["content"], str):
            message["content"] = message["content"].replace("{query}", question)
            continue
        for part in message["content"]:
            if part["type"] == "text":
                part["text"] = part["text"].replace("{query}", question)
            else:
                part["data"] = encode(tensors[part["data"]])
    return request


def encode(tensor: torch.Tensor) -> str:
    """A tensor in vLLM's protocol: base64 of what `torch.save` writes. It is sent, and never stored."""
    buffer = io.BytesIO()
    torch.save(tensor, buffer)
    return base64.b64encode(buffer.getvalue()).decode()


def post(url: str, request: dict[str, Any]) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(request).encode(), headers)) as answer:
        return json.load(answer)


if __name__ == "__main__":
    server, question = sys.argv[1:]
    answer = post(f"{server}/v1/chat/completions", body(Path(__file__).parent, question))
    print(answer["choices"][0]["message"]["content"])
