from __future__ import annotations

import pytest
from tests.conftest import PLACEMENTS, SEEDS, make_tokenizer

from embedgrad_cli.config.schema import Message, TemplateConfig
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.errors import TemplateError


def test_slots_are_where_the_seed_stands() -> None:
    prompt_template = PromptTemplate(PLACEMENTS["both-sides"], SEEDS, make_tokenizer(), True)
    rendered = prompt_template.render("How many?")
    assert [rendered.text[a:b] for a, b in rendered.slots] == SEEDS
    assert rendered.text.endswith("<|im_start|>assistant\n")
    assert prompt_template.tail == "<|im_end|>\n<|im_start|>assistant\n"


def test_a_query_may_hold_anything() -> None:
    query = "What does {prompt} mean, and {query}, and {0}?"
    rendered = PromptTemplate(PLACEMENTS["before-query"], SEEDS, make_tokenizer(), True).render(query)
    assert query in rendered.text
    assert len(rendered.slots) == 1


@pytest.mark.parametrize(
    ("placement", "chat", "expected"),
    [
        ("system", True, "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"),
        ("after-query", True, "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"),
        ("after-query", False, "Q\n"),
        ("before-query", False, "Q\n"),
    ],
)
def test_the_arm_none_has_no_prompt_and_no_empty_turn(placement: str, chat: bool, expected: str) -> None:
    assert PromptTemplate(PLACEMENTS[placement], None, make_tokenizer(), chat).render("Q").text == expected


def bad(chat_template: str | None, template: TemplateConfig, seeds: list[str]) -> str:
    tokenizer = make_tokenizer()
    if chat_template:
        tokenizer.chat_template = chat_template
    with pytest.raises(TemplateError) as caught:
        PromptTemplate(template, seeds, tokenizer, True).render("a query ")
    return str(caught.value)


def test_what_is_wrong_with_a_template_is_said() -> None:
    user_only = TemplateConfig([Message("user", "{query}")], "{query}")
    assert "{prompt}" in bad(None, user_only, SEEDS)
    prompt_only = TemplateConfig([Message("user", "{prompt}")], "{prompt}")
    assert "{query}" in bad(None, prompt_only, SEEDS)
    assert "prompt.text" in bad(None, PLACEMENTS["both-sides"], SEEDS[:1])
    assert "prompt.text" in bad(None, PLACEMENTS["system"], [" "])
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}x"
    assert "template=before-query" in bad(refuses, PLACEMENTS["system"], SEEDS)
    trims = "{% for m in messages %}<{{ m['content'] | trim }}>{% endfor %}"
    assert "model.template=plain" in bad(trims, PLACEMENTS["system"], ["trimmed at the end "])


@pytest.mark.parametrize(
    "chat_template",
    [
        "{% for m in messages if m['role'] == 'user' %}<{{ m['content'] }}>{% endfor %}",
        "{% for m in messages %}<{% for part in m['content'] if part.text %}{{ part.text }}{% endfor %}>{% endfor %}",
    ],
    ids=["no system turn", "contents are lists of parts"],
)
def test_a_chat_template_that_drops_a_turn_is_refused(chat_template: str) -> None:
    """Otherwise the arms seed and none would be the same."""
    assert "template=before-query" in bad(chat_template, PLACEMENTS["system"], SEEDS)
