from __future__ import annotations

import re

import pytest
from tests.conftest import CHAT_TEMPLATE, PLACEMENTS, SEEDS, make_tokenizer

from embedgrad_cli.config.schema import Message, TemplateConfig
from embedgrad_cli.config.task_schema import WorkedExample
from embedgrad_cli.core.text.few_shot import with_examples
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
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    refuses += CHAT_TEMPLATE
    assert "template=before-query" in bad(refuses, PLACEMENTS["system"], SEEDS)
    trims = "{% for m in messages %}<{{ m['content'] | trim }}>{% endfor %}"
    assert "model.template=plain" in bad(trims, PLACEMENTS["system"], ["trimmed at the end "])


EVERY = "{% for m in messages %}<{{ m.role }}>{{ CONTENT }}{% endfor %}"
USER, PLAIN = ["before-query", "after-query"], []


def each_turn(content: str) -> str:
    return EVERY.replace("CONTENT", content)


@pytest.mark.parametrize(
    ("chat_template", "placement", "works"),
    [
        ("{% for m in messages if m.role == 'user' %}<{{ m.content }}>{% endfor %}", "system", USER),
        (each_turn("m.content | selectattr('text') | map(attribute='text') | join"), "system", PLAIN),
        ("{{ messages[0].content }}" + each_turn("m.content"), "system", PLAIN),
        (each_turn("m.content if m.role == 'user' else m.content ~ m.content"), "system", USER),
        (each_turn("m.content | replace('\n', ' ')"), "before-query", ["system"]),
        (each_turn("m.content.split('\n')[0]"), "before-query", ["system"]),
        (each_turn("m.content | tojson"), "before-query", ["system"]),
    ],
    ids=["no system turn", "lists of parts", "first turn twice", "system twice", "no lines", "first line", "as JSON"],
)
def test_a_chat_template_that_loses_or_repeats_a_text_is_refused(
    chat_template: str, placement: str, works: list[str]
) -> None:
    """Otherwise arms that differ in it would be the same. What works is named, and nothing that does not."""
    tokenizer = make_tokenizer()
    tokenizer.chat_template = chat_template
    with pytest.raises(TemplateError) as caught:
        PromptTemplate(PLACEMENTS[placement], SEEDS, tokenizer, True)
    assert re.findall(r"template=(?!plain)([\w-]+)", str(caught.value)) == works
    assert "model.template=plain" in str(caught.value)
    for name in works:
        PromptTemplate(PLACEMENTS[name], SEEDS, tokenizer, True).render("How many?")


def test_a_worked_example_that_the_chat_template_drops_is_missed() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "<{{ messages[0].content }}><{{ messages[-1].content }}>"
    template = with_examples(PLACEMENTS["system"], [WorkedExample("Tom has 3 apples.", "3")], "turns")
    PromptTemplate(PLACEMENTS["system"], SEEDS, tokenizer, True)
    with pytest.raises(TemplateError, match="Tom has 3 apples"):
        PromptTemplate(template, SEEDS, tokenizer, True)


def test_every_query_is_looked_at() -> None:
    """Not the first few alone: the template escapes what no earlier query had."""
    tokenizer = make_tokenizer()
    tokenizer.chat_template = each_turn("m.content | replace('&', '&amp;')")
    prompt_template = PromptTemplate(PLACEMENTS["system"], SEEDS, tokenizer, True)
    for number in range(20):
        prompt_template.render(f"How many, {number}?")
    with pytest.raises(TemplateError, match="template="):
        prompt_template.render("Tom & Ana")
