"""`format=embeds`: what vLLM is sent holds the embeddings of training."""

from __future__ import annotations

import base64
import io
import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import CHAT_TEMPLATE, PLACEMENTS, make_tokenizer
from tests.exports.conftest import QUERIES, Case, make_case, merging_tokenizer

from embedgrad_cli import load
from embedgrad_cli.exports.artifact_source import open_source
from embedgrad_cli.exports.embeds import embed_query

PLACEHOLDER = "<prompt_embeds>"


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize(
    ("architecture", "tied"),
    [
        ("qwen2", True),
        ("llama", False),
        ("gemma", True),
        ("gpt2", True),
        ("gpt_neox", False),
        ("nemotron_h", False),
        ("gemma3", True),
    ],
)
def test_a_conversation_is_embedded_as_the_network_does(
    architecture: str, tied: bool, placement: str, tmp_path: Path
) -> None:
    case = make_case(tmp_path, architecture, placement, tied=tied)
    source = open_source(case.artifact)
    for query, example in zip(QUERIES, case.examples, strict=True):
        embeds = embed_query(source, query)
        assert embeds.dtype == torch.float32
        expected = case.prompt.embed(torch.tensor([example.tokens]), case.model)[0]
        torch.testing.assert_close(embeds, expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize("architecture", ["qwen2", "gemma"])
def test_half_precision_is_embedded_to_the_bit(architecture: str, tmp_path: Path) -> None:
    case = make_case(tmp_path, architecture, tied=True, dtype=torch.bfloat16)
    embeds = embed_query(open_source(case.artifact), QUERIES[0]).to(torch.bfloat16)
    assert torch.equal(embeds, case.prompt.embed(torch.tensor([case.examples[0].tokens]), case.model)[0])


def as_vllm_renders(case: Case, request: dict) -> list[int]:
    """What vLLM 0.32 makes of a request: parts joined by line breaks, one placeholder token for each tensor."""
    from tokenizers import AddedToken

    tokenizer = case.model.tokenizer
    tokenizer.add_tokens([AddedToken(PLACEHOLDER, special=True, normalized=False)], special_tokens=True)
    messages = []
    for message in request["messages"]:
        content = message["content"]
        if not isinstance(content, str):
            content = "\n".join(part.get("text", PLACEHOLDER) for part in content)
        messages.append({"role": message["role"], "content": content})
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_request_renders_to_the_conversation_of_training(placement: str, tmp_path: Path) -> None:
    case = make_case(tmp_path, placement=placement)
    assert case.export("embeds", tmp_path / "out") == 0
    spec = spec_from_file_location("client", tmp_path / "out/client.py")
    assert spec is not None
    assert spec.loader is not None
    client = module_from_spec(spec)
    spec.loader.exec_module(client)
    request = client.body(tmp_path / "out", QUERIES[0])
    tensors = [part["data"] for m in request["messages"] if isinstance(m["content"], list) for part in m["content"]
               if part["type"] == "prompt_embeds"]  # fmt: skip
    sent = [torch.load(io.BytesIO(base64.b64decode(data)), weights_only=True) for data in tensors]
    stored = load_file(tmp_path / "out/prompt_embeds.safetensors")
    assert torch.equal(torch.cat(sent), case.prompt.vectors)
    assert torch.equal(torch.cat([stored[f"prompt_embeds.{i}"] for i in range(len(stored))]), case.prompt.vectors)
    placeholder = len(case.model.tokenizer)
    expanded, row = list[int](), 0
    for token in as_vllm_renders(case, request):
        if token != placeholder:
            expanded.append(token)
            continue
        width = len(sent.pop(0))
        expanded += range(-1 - row, -1 - row - width, -1)
        row += width
    assert tuple(expanded) == case.examples[0].tokens


def test_no_request_is_written_where_line_breaks_would_be_added(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The prompt's last token is ".\\n" here: vLLM would add a second line break."""
    case = make_case(tmp_path, placement="before-query", tokenizer=merging_tokenizer())
    assert case.export("embeds", tmp_path / "out") == 0
    assert "no request.json" in capsys.readouterr().out
    assert not (tmp_path / "out/request.json").exists()
    assert embed_query(open_source(case.artifact), QUERIES[0]).shape == (len(case.examples[0].tokens), 32)


def test_no_request_is_written_where_the_server_would_add_a_blank(tmp_path: Path) -> None:
    """The server's own chat template ends in a blank, which is the answer's in training."""
    tokenizer = make_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE.replace("assistant\n", "assistant: ")
    case = make_case(tmp_path, tokenizer=tokenizer)
    assert case.export("embeds", tmp_path / "out") == 0
    assert not (tmp_path / "out/request.json").exists()
    assert len(embed_query(open_source(case.artifact), QUERIES[0])) == len(case.examples[0].tokens)


def test_nothing_in_the_folder_is_a_pickle(case: Case, tmp_path: Path) -> None:
    assert case.export("embeds", tmp_path / "out") == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "client.py",
        "prompt_embeds.json",
        "prompt_embeds.safetensors",
        "request.json",
    }
    request = json.loads((tmp_path / "out/request.json").read_text())
    assert request["messages"][0]["content"] == [{"type": "prompt_embeds", "data": "prompt_embeds.0"}]


@pytest.mark.parametrize("stop", [None, ["\nQ:", "</s>"]])
def test_stop_strings_go_along(stop: list[str] | None, tmp_path: Path) -> None:
    case = make_case(tmp_path, stop=stop)
    assert case.export("embeds", tmp_path / "out") == 0
    assert json.loads((tmp_path / "out/request.json").read_text()).get("stop") == stop
    assert case.export("model", tmp_path / "model") == 0
    assert json.loads((tmp_path / "model/embedgrad.json").read_text())["stop"] == stop
    assert load(case.artifact).stop_strings == stop


@pytest.mark.parametrize("placement", ["system", "before-query"])
def test_the_export_warns_of_a_cache_that_does_not_know_vectors(
    placement: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_case(tmp_path, placement=placement).export("embeds", tmp_path / "out") == 0
    assert "without LMCache" in capsys.readouterr().out
