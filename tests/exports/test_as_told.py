"""Exports of prompts whose chat template writes something before an answer, or is told something."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import make_tokenizer, sentencepiece_tokenizer
from tests.core.text.test_answer_prefix import GPT_OSS, LLAMA_2, QWEN_3
from tests.exports.conftest import NEW_TOKENS, QUERIES, Case, ids_of, make_case
from tests.exports.test_peft import assert_same
from tests.exports.test_python_agrees import CONVERSATIONS, assert_agree
from transformers import AutoModelForCausalLM, AutoTokenizer

CLOCK = "Today: {{ strftime_now('%d %b %Y') }}\n"
TOLD = {"enable_thinking": False}


def case_of(folder: Path, chat_template: str, placement: str = "before-query", **more: Any) -> Case:
    make = sentencepiece_tokenizer if chat_template == LLAMA_2 else make_tokenizer
    tokenizer = make()
    tokenizer.chat_template = chat_template
    return make_case(folder, placement=placement, tokenizer=tokenizer, **more)


@pytest.mark.parametrize(
    ("chat_template", "placement", "told"),
    [
        (QWEN_3, "before-query", None),
        (QWEN_3, "system", TOLD),
        (GPT_OSS, "system", None),
        (GPT_OSS.replace("<|message|>", "<|message|> "), "before-query", None),
        (LLAMA_2, "before-query", None),
    ],
    ids=["qwen-3", "qwen-3 told not to think", "gpt-oss", "a channel and a blank", "llama-2"],
)
def test_every_export_begins_an_answer_where_training_does(
    chat_template: str, placement: str, told: Any, tmp_path: Path
) -> None:
    case = case_of(tmp_path, chat_template, placement, told=told)
    assert case.export("peft", tmp_path / "peft") == 0
    assert_same(case, tmp_path / "peft")
    if chat_template == LLAMA_2:  # format=model is refused: its tokenizer puts a blank behind added tokens
        return
    assert_agree(case, tmp_path, CONVERSATIONS if placement == "before-query" else CONVERSATIONS[:1])
    network: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "out")
    for query, answer in zip(QUERIES, case.answers(), strict=True):
        ids = ids_of(tokenizer, query)
        output = network.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW_TOKENS)
        found = [token for token in output[0, ids.shape[1] :].tolist() if token not in case.model.end_ids]
        assert found == answer


@pytest.mark.parametrize(
    ("chat_template", "told", "is_sent"),
    [
        (QWEN_3, None, False),
        (QWEN_3, TOLD, True),
        (CLOCK + QWEN_3, TOLD, False),
        ("{% if date_string is not defined %}" + CLOCK + "{% endif %}" + QWEN_3, {**TOLD, "date_string": "now"}, True),
    ],
    ids=["thoughts", "told not to think", "the day", "told the day"],
)
def test_a_request_is_written_where_the_server_s_template_gives_the_same_on_any_day(
    chat_template: str, told: Any, is_sent: bool, tmp_path: Path
) -> None:
    case = case_of(tmp_path, chat_template, "system", told=told)
    assert case.export("embeds", tmp_path / "out") == 0
    request = tmp_path / "out/request.json"
    assert request.exists() is is_sent
    if is_sent:
        assert json.loads(request.read_text())["chat_template_kwargs"] == told
