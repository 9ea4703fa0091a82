from __future__ import annotations

import pytest
from tests.conftest import PLACEMENTS, ROWS, SEEDS, Row, make_model

from embedgrad_cli.config.schema import Message, TemplateConfig
from embedgrad_cli.core.text.encoding import Example, continuation, encode, trunk_length
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


def test_target_is_what_the_model_would_generate() -> None:
    model = make_model(chat=False)
    prompt_template = PromptTemplate(PLACEMENTS["system"], SEEDS, model.tokenizer, False)
    ids = continuation("positive", prompt_template, model)
    assert model.tokenizer.decode(list(ids)) == "positive"


def test_trunk_is_the_longest_common_prefix_short_of_the_last_token() -> None:
    def trunk(*tokens: tuple[int, ...]) -> int:
        return trunk_length([Example(str(i), t, (1,)) for i, t in enumerate(tokens)])

    assert trunk((5, -1, -2, 7, 8), (5, -1, -2, 9)) == 3
    assert trunk((5, 6), (5, 6)) == 1
    assert trunk((5, -1, 6), (5, 7, -1)) == 1
    assert trunk((4,), (5,)) == 0
    assert trunk() == 0


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
