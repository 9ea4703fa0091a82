"""What an exported chat template makes of conversations that are longer than those of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.conftest import PLACEMENTS, make_tokenizer
from tests.exports.conftest import make_case
from transformers import AutoTokenizer

from embedgrad_cli.config.schema import Message, TemplateConfig

HISTORY = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
]
OWN = {"role": "system", "content": "Be brief."}


def rendered(placement: str, tmp_path: Path, messages: list[dict[str, Any]]) -> str:
    """The conversation by an exported tokenizer, each prompt as P and its number of slot."""
    case = make_case(tmp_path, placement=placement)
    assert case.export("model", tmp_path / "out") == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    first = 0
    for number, ids in enumerate(case.prompt.slots.ids):
        names = "".join(f"<|embedgrad_{row}|>" for row in range(first, first + len(ids)))
        text, first = text.replace(names, f"P{number}"), first + len(ids)
    assert "embedgrad" not in text
    return text


def plain(*messages: tuple[str, str]) -> str:
    turns = [{"role": role, "content": content} for role, content in messages]
    return make_tokenizer().apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


EXPECTED = {
    "system": [("system", "P0"), ("user", "one"), ("assistant", "two"), ("user", "three")],
    "before-query": [("user", "one"), ("assistant", "two"), ("user", "P0\nthree")],
    "after-query": [("user", "one"), ("assistant", "two"), ("user", "three\nP0")],
    "both-sides": [("system", "P0"), ("user", "one"), ("assistant", "two"), ("user", "three\nP1")],
}


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_last_question_carries_the_prompt(placement: str, tmp_path: Path) -> None:
    assert rendered(placement, tmp_path, HISTORY) == plain(*EXPECTED[placement])


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_system_turn_of_the_client_s_own_is_kept(placement: str, tmp_path: Path) -> None:
    expected = EXPECTED[placement]
    if expected[0][0] == "system":
        expected = [("system", "P0\n\nBe brief."), *expected[1:]]
    else:
        expected = [("system", "Be brief."), *expected]
    assert rendered(placement, tmp_path, [OWN, *HISTORY]) == plain(*expected)


def test_turns_of_tools_stay_where_they_are(tmp_path: Path) -> None:
    called = [HISTORY[0], {"role": "assistant", "content": "call"}, {"role": "tool", "content": "result"}]
    expected = [("user", "one\nP0"), ("assistant", "call"), ("tool", "result")]
    assert rendered("after-query", tmp_path, called) == plain(*expected)


def test_content_in_parts_keeps_its_parts(tmp_path: Path) -> None:
    """Some templates read lists of parts; vLLM sends such lists to them."""
    case = make_case(tmp_path, placement="after-query")
    assert case.export("model", tmp_path / "out") == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    own = "{% for m in messages %}{% for part in m['content'] %}[{{ part['text'] }}]{% endfor %}{% endfor %}"
    preamble = tokenizer.chat_template.removesuffix(case.model.tokenizer.chat_template)
    tokenizer.chat_template = preamble + own
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    text = tokenizer.apply_chat_template([{"role": "user", "content": parts}], tokenize=False)
    names = "".join(f"<|embedgrad_{row}|>" for row in range(case.prompt.slots.num_tokens))
    assert text == f"[a][b][\n{names}]"


def test_several_named_templates_all_carry_the_prompt(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = {"default": tokenizer.chat_template, "tool_use": "tools: " + tokenizer.chat_template}
    case = make_case(tmp_path, tokenizer=tokenizer)
    assert case.export("model", tmp_path / "out") == 0
    exported = AutoTokenizer.from_pretrained(tmp_path / "out")
    for name in ("default", "tool_use"):
        text = exported.apply_chat_template(HISTORY, chat_template=name, tokenize=False)
        assert text.count("<|embedgrad_0|>") == 1


def test_a_template_may_say_what_the_rewriting_calls_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = TemplateConfig([Message("system", "HEAD: BODY OWN_SYSTEM\n{prompt}"), Message("user", "{query}")], "")
    monkeypatch.setitem(PLACEMENTS, "shouting", template)
    first = ("system", "HEAD: BODY OWN_SYSTEM\nP0")
    assert rendered("shouting", tmp_path, HISTORY) == plain(first, *EXPECTED["system"][1:])
