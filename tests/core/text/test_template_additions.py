"""What chat templates of known families write by themselves is told from their markup."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conftest import CHAT_TEMPLATE, PLACEMENTS, SEEDS, make_tokenizer, shared_data

from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.core.text.template_additions import Addition, added_by

QWEN = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
DATE = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024"
LAST = "{% if add_generation_prompt %}"
SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set rest = messages[1:] %}"
)
SYSTEM += "{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}"
LLAMA_3 = (
    SYSTEM + "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n" + DATE + "\n\n{{ system }}<|eot_id|>"
    "{% for m in rest %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] }}<|eot_id|>{% endfor %}"
    + LAST + "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)  # fmt: skip
LLAMA_2 = (
    SYSTEM + "{% for m in rest %}{% if m['role'] == 'user' %}<s>[INST] {% if loop.first and system %}<<SYS>>\n"
    "{{ system }}\n<</SYS>>\n\n{% endif %}"
    "{{ m['content'] }} [/INST]{% else %} {{ m['content'] }} </s>{% endif %}{% endfor %}"
)  # fmt: skip
GEMMA = (
    "<bos>{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] }}<end_of_turn>\n"
    "{% endfor %}" + LAST + "<start_of_turn>model\n{% endif %}"
)
POLITE = "A chat between a curious user and an assistant. The assistant is polite."
VICUNA = (
    SYSTEM + "{{ system or '" + POLITE + "' }} {% for m in rest %}{{ m['role'].upper() }}: {{ m['content'] }}"
    "{{ '</s>' if m['role'] == 'assistant' else ' ' }}{% endfor %}" + LAST + "ASSISTANT:{% endif %}"
)  # fmt: skip
ZEPHYR = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}</s>\n{% endfor %}"
    + LAST + "<|assistant|>\n{% endif %}"
)  # fmt: skip
METADATA = "## Metadata\nKnowledge Cutoff Date: June 2025\n## Custom Instructions"
SMOLLM_3 = (
    SYSTEM + "<|im_start|>system\n" + METADATA + "\n{{ system or 'You are SmolLM.' }}<|im_end|>\n{% for m in rest %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    + LAST + "<|im_start|>assistant\n{% endif %}"
)  # fmt: skip


def qwen() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(shared_data("tokenizers/qwen2.5"))


def made(chat_template: str) -> Any:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = chat_template
    return tokenizer


@pytest.mark.parametrize(
    ("tokenizer", "none", "seed"),
    [
        (qwen, Addition(QWEN, True), None),
        (CHAT_TEMPLATE, None, None),
        (LLAMA_3, Addition(DATE, True), Addition(DATE, False)),
        (LLAMA_2, None, None),
        (VICUNA, Addition(POLITE, False), None),
        (ZEPHYR, None, None),
        (SMOLLM_3, Addition(f"{METADATA}\nYou are SmolLM.", True), Addition(METADATA, False)),
    ],
    ids=["qwen2.5", "chatml", "llama-3", "llama-2", "vicuna", "zephyr", "smollm-3"],
)
def test_a_family(tokenizer: Any, none: Addition | None, seed: Addition | None) -> None:
    tokenizer = made(tokenizer) if isinstance(tokenizer, str) else tokenizer()
    template = PLACEMENTS["system"]
    assert added_by(PromptTemplate(template, None, tokenizer, True)) == none
    assert added_by(PromptTemplate(template, SEEDS[:1], tokenizer, True)) == seed
    assert added_by(PromptTemplate(template, SEEDS[:1], tokenizer, False)) is None, "plain text has no such template"
    in_user_turn = PromptTemplate(PLACEMENTS["after-query"], SEEDS[:1], tokenizer, True)
    assert added_by(in_user_turn) == none, "the prompt beside the query leaves the system turn to the template"


def test_a_template_without_a_system_turn() -> None:
    template = PLACEMENTS["before-query"]
    assert added_by(PromptTemplate(template, SEEDS[:1], made(GEMMA), True)) is None
