from __future__ import annotations

import pytest
from tests.conftest import PLACEMENTS, ROWS, SEEDS, Row, make_model

from embedgrad_cli.config.schema import Message, TemplateConfig
from embedgrad_cli.core.text.encoding import Renderings, encode
from embedgrad_cli.core.text.marked_tokens import token_ids
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.errors import DataError, TemplateError


def test_slot_tokens_are_the_seeds_own() -> None:
    model = make_model()
    encoded = encode(
        ROWS, PromptTemplate(PLACEMENTS["both-sides"], SEEDS, model.tokenizer, True), model, append_end_token=True
    )
    assert [model.tokenizer.decode(list(ids)) for ids in encoded.slots.ids] == SEEDS
    for example in encoded.examples:
        assert [t for t in example.tokens if t < 0] == [-1 - i for i in range(encoded.slots.num_tokens)]
        assert example.target[-1] == model.turn_end_id


def test_known_renderings_change_nothing() -> None:
    model = make_model()
    prompt_template = PromptTemplate(PLACEMENTS["system"], SEEDS, model.tokenizer, True)
    renderings = Renderings(prompt_template)
    ids = [token_ids(*known) for known in renderings.tokens_of([ROWS[1], *ROWS])]
    assert ids[1:] == model.tokenizer([prompt_template.render(row.query).text for row in ROWS])["input_ids"]
    assert ids[0] == ids[2]
    encoded = encode(ROWS, prompt_template, model, append_end_token=True)
    assert encode(ROWS, prompt_template, model, append_end_token=True, renderings=renderings) == encoded


def test_a_prompt_that_the_query_touches_is_refused() -> None:
    model = make_model()
    glued = TemplateConfig([Message("user", "{prompt}{query}")], "{prompt}{query}")
    rows = [Row("a", "steps", "1"), Row("b", "...", "2"), Row("c", "lem and give", "2")]
    with pytest.raises(TemplateError, match="example c"):
        encode(rows, PromptTemplate(glued, ["Solve the prob"], model.tokenizer, True), model, append_end_token=False)


def test_a_query_that_the_chat_template_refuses_or_rewrites_is_named() -> None:
    model = make_model()
    content = "message['content'] if '?' in message['content'] else message['content'] | trim('.')"
    model.tokenizer.chat_template = model.tokenizer.chat_template.replace("message['content']", content, 1)
    rows = [Row("train:7", "How many?", "1"), Row("train:8", "Tell me.", "2")]
    prompt_template = PromptTemplate(PLACEMENTS["before-query"], SEEDS, model.tokenizer, True)
    with pytest.raises(TemplateError, match="train:8"):
        encode(rows, prompt_template, model, append_end_token=False)


def test_an_example_too_long_is_named_or_skipped() -> None:
    model = make_model()
    rows = [*ROWS, Row("train:99", "word " * 600, "1")]
    prompt_template = PromptTemplate(PLACEMENTS["system"], SEEDS, model.tokenizer, True)
    with pytest.raises(DataError, match=r"train:99.*512.*task\.too_long=skip"):
        encode(rows, prompt_template, model, append_end_token=True)
    encoded = encode(rows, prompt_template, model, append_end_token=True, too_long="skip")
    assert encoded.skipped == ["train:99"]
    assert len(encoded.examples) == len(ROWS)
