from __future__ import annotations

from dataclasses import replace

import pytest
from tests.conftest import PLACEMENTS, ROWS, SEEDS, Row, make_model, make_tokenizer, sentencepiece_tokenizer

from embedgrad_cli.config.schema import TemplateConfig
from embedgrad_cli.core.text.answer_tokens import continuation, encode_choices
from embedgrad_cli.core.text.conversation import render_turns
from embedgrad_cli.core.text.encoding import encode
from embedgrad_cli.core.text.template import PromptTemplate


def test_target_is_what_the_model_would_generate() -> None:
    model = make_model(chat=False)
    prompt_template = PromptTemplate(PLACEMENTS["system"], SEEDS, model.tokenizer, False)
    ids = continuation("positive", prompt_template)
    assert model.tokenizer.decode(list(ids)) == "positive"


CUES = ["{prompt}\n{query}\nAnswer: ", "{query}\n{prompt} ", "{prompt}\nQuestion: {query}  ", "{query}\n{prompt}\n: "]


@pytest.mark.parametrize("text", CUES)
@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece"])
def test_a_blank_at_the_end_of_the_template_is_the_answer_s(text: str, kind: str) -> None:
    """Tokens and target together are those of the whole text, which joins the blank to the answer's first word."""
    tokenizer = make_tokenizer(chat=False) if kind == "byte-level" else sentencepiece_tokenizer()
    model = replace(make_model(chat=False), tokenizer=tokenizer)
    template = TemplateConfig([], text)
    rows = [replace(row, target="positive and humane") for row in ROWS]
    encoded = encode(rows, PromptTemplate(template, SEEDS, tokenizer, False), model, append_end_token=False)
    for row, example in zip(rows, encoded.examples, strict=True):
        written = text.replace("{prompt}", SEEDS[0]).replace("{query}", row.query)
        tokens = [t if t >= 0 else encoded.slots.flat_ids[-1 - t] for t in example.tokens]
        assert [*tokens, *example.target] == tokenizer(written + row.target)["input_ids"]
        assert tokens == tokenizer(written.rstrip())["input_ids"]
        assert tokenizer.decode(example.target).strip() == row.target


def test_a_blank_at_the_end_of_a_chat_template_is_the_answer_s() -> None:
    tokenizer = make_tokenizer()
    turns = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token if m.role == 'assistant' }}\n{% endfor %}"
    tokenizer.chat_template = turns + "{% if add_generation_prompt %}assistant: {% endif %}"
    model = replace(make_model(), tokenizer=tokenizer)
    row = Row("train:0", "Tom has 3 apples.", "positive")
    for template in PLACEMENTS.values():
        encoded = encode([row], PromptTemplate(template, SEEDS, tokenizer, True), model, append_end_token=True)
        tokens = [t if t >= 0 else encoded.slots.flat_ids[-1 - t] for t in encoded.examples[0].tokens]
        target = encoded.examples[0].target
        assert tokenizer.decode(tokens).endswith("assistant:")
        whole = tokenizer.decode([*tokens, *target])
        assert tokenizer(whole)["input_ids"] == [*tokens, *target]
        assert whole.endswith("assistant: positive<|im_end|>")
        asked = [{"role": "user", "content": row.query}]
        assert render_turns(asked, template, SEEDS, tokenizer, True).text == tokenizer.decode(tokens)


@pytest.mark.parametrize("chat", [True, False])
def test_where_a_choice_begins_another_every_choice_has_the_turn_s_end(chat: bool) -> None:
    model = make_model(chat=chat)
    prompt_template = PromptTemplate(PLACEMENTS["system"], SEEDS, model.tokenizer, chat)
    end = model.turn_end_id
    clash = encode_choices(("3 apples", "pages", "3 apples now"), prompt_template)
    assert clash.with_end
    assert [ids[-1] for ids in clash.ids] == [end] * 3
    assert [model.tokenizer.decode(ids[:-1]) for ids in clash.ids] == list(clash.names)
    apart = encode_choices(("3 apples", "pages"), prompt_template)
    assert not apart.with_end
    assert apart.ids == tuple(ids[:-1] for ids in clash.ids[:2])
    rows = [Row("a", "Which?", "3 apples", "", clash.names), Row("b", "Which one?", "3 apples", "", apart.names)]
    encoded = encode(rows, prompt_template, model, append_end_token=False)
    assert [example.target for example in encoded.examples] == [clash.ids[0], apart.ids[0]], "trained as it is scored"
