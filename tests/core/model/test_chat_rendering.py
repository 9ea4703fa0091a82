"""A chat template is a program of others: what it does too long, too large or not at all is said, and nothing hangs."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import CHAT_TEMPLATE, PLACEMENTS, make_tokenizer

from embedgrad_cli.config.schema import ModelConfig
from embedgrad_cli.core.model import chat_rendering
from embedgrad_cli.core.model.tokenizer import find_turn_end, load_tokenizer
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.errors import EmbedgradError, ModelError, TemplateError

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def prompt_template(head: str) -> PromptTemplate:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = head + CHAT_TEMPLATE
    return PromptTemplate(PLACEMENTS["system"], ["Think."], tokenizer, is_chat=True)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (ENDLESS, "may never end"),
        ("{% set ns = namespace(x=9) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}", "never end"),
        ("{{ 'x' * 10000000000 }}", "MiB of memory"),
        ("{{ 'x' | center(9999999999) }}", "MiB of memory"),
        (r"{{ '\ud83d' }}", "half of a character"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% import 'os' as os %}", "no loader"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{{ raise_exception('not today') }}", "not today"),
        ("{% if %}", "Expected an expression"),
    ],
)
def test_what_a_template_may_not_do(head: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if words.endswith("never end"):
        monkeypatch.setattr(chat_rendering, "SECONDS", 0.1)
    with pytest.raises(TemplateError, match=words):
        prompt_template(head)


def test_a_power_is_refused_before_it_is_computed(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ 9**9**9**9 }}" + CHAT_TEMPLATE
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError, match="power"):
        load_tokenizer(ModelConfig(str(tmp_path), None, "auto", "auto", False))
    bold = "{{ '**Be brief.**' }}{# 2**2 #}" + CHAT_TEMPLATE
    chat_rendering.refuse_powers({"default": bold, "tools": bold})


@pytest.mark.parametrize("refused", ["{{ 1 / 0 }}", "{{ raise_exception('no answers') }}", ENDLESS])
def test_a_template_that_refuses_answers_has_the_tokenizers_end(refused: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses them in the middle of a run otherwise, when the first answer is encoded."""
    monkeypatch.setattr(chat_rendering, "SECONDS", 0.1)
    tokenizer = make_tokenizer()
    tokenizer.chat_template = f"{{% if messages[-1].role == 'assistant' %}}{refused}{{% endif %}}" + CHAT_TEMPLATE
    assert find_turn_end(tokenizer, is_chat=True).token_id == tokenizer.eos_token_id


def test_a_template_that_wants_a_system_turn_says_how_turns_end() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}" + CHAT_TEMPLATE
    )
    tokenizer.eos_token = "<|endoftext|>"
    assert find_turn_end(tokenizer, is_chat=True).token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_nothing_is_left_of_the_limits() -> None:
    """What computes longer or takes more memory afterwards may do so."""
    with pytest.raises(EmbedgradError):
        prompt_template("{{ 'x' * 10000000000 }}")
    assert len(bytearray(chat_rendering.BYTES + (1 << 20))) > chat_rendering.BYTES
