"""Where an assistant's turn ends: at a token that marks it, whatever the chat template writes in front of that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.conftest import PLACEMENTS, ROWS, SEEDS, make_model, make_tokenizer, sentencepiece_tokenizer

from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.text.encoding import encode
from embedgrad_cli.core.text.template import PromptTemplate

TURN = "{% for m in messages %}{% if m.role == 'assistant' %}ANSWER{% else %}OTHER{% endif %}{% endfor %}START"
OTHER = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
START = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def chat_template(after: str) -> str:
    """ChatML with something else after an answer."""
    answer = "<|im_start|>assistant\n{{ m.content }}" + after
    return TURN.replace("ANSWER", answer).replace("OTHER", OTHER).replace("START", START)


def chat_model(after: str, tokenizer: Any = None) -> LanguageModel:
    model = make_model()
    tokenizer = tokenizer or model.tokenizer
    tokenizer.chat_template = chat_template(after)
    return replace(model, tokenizer=tokenizer)


@pytest.mark.parametrize(
    "after", ["<|im_end|>\n", "\n<|im_end|>", " <|im_end|>\n", "\n\n<|im_end|><|im_start|>", " (end)<|im_end|>"]
)
def test_a_turn_ends_with_a_token_that_marks_it(after: str) -> None:
    model = chat_model(after)
    end = model.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert model.turn_end_id == end
    assert model.end_ids == {end}


@pytest.mark.parametrize("after", ["", "\n", "<|finish|>\n", " </answer>"])
def test_where_no_token_marks_it_a_turn_ends_with_the_end_of_text(after: str) -> None:
    model = chat_model(after)
    assert model.end_ids == {model.tokenizer.eos_token_id}


def test_added_tokens_of_white_space_or_plain_text_end_no_turn() -> None:
    from tokenizers import AddedToken

    tokenizer = make_tokenizer()
    added = [AddedToken(text, normalized=False, special=False) for text in ("\n", "\u2581\u2581", "Over", "<|over|>")]
    tokenizer.add_tokens(added)
    model = chat_model("\nOver\u2581\u2581<|over|>\n<|im_end|>", tokenizer)
    assert model.turn_end_id == tokenizer.convert_tokens_to_ids("<|over|>")


def test_text_that_the_tokenizer_does_not_know_ends_no_turn() -> None:
    tokenizer = sentencepiece_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content + ' \u4e16 ' + eos_token }}{% endfor %}"
    assert tokenizer.unk_token_id in tokenizer("\u4e16")["input_ids"]
    assert replace(make_model(), tokenizer=tokenizer).end_ids == {tokenizer.eos_token_id}


@pytest.mark.parametrize("after", ["<|im_end|>\n", "\n<|im_end|>", " <|im_end|>\n", " (end)\n<|im_end|>"])
def test_a_target_is_what_the_template_writes_up_to_there(after: str) -> None:
    model = chat_model(after)
    check_targets(model, "<|im_end|>")


def test_a_target_of_a_template_like_llama_2_s() -> None:
    """It writes a blank before the answer, and one before the end of text, which its tokenizer has a token for."""
    tokenizer = sentencepiece_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ ' ' + m.content + ' ' + eos_token }}"
        "{% else %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}{% endif %}{% endfor %}"
    )
    model = replace(make_model(), tokenizer=tokenizer)
    assert model.end_ids == {tokenizer.eos_token_id}
    [first, *_] = check_targets(model, "</s>")
    assert tokenizer.convert_ids_to_tokens(first[-2:]) == ["\u2581", "</s>"]


def check_targets(model: LanguageModel, end: str) -> list[list[int]]:
    """Every target is the tokens of the whole conversation behind the query's, up to the end of the turn."""
    tokenizer, targets = model.tokenizer, []
    prompt_template = PromptTemplate(PLACEMENTS["before-query"], SEEDS, tokenizer, True)
    encoded = encode(ROWS, prompt_template, model, append_end_token=True)
    for row, example in zip(ROWS, encoded.examples, strict=True):
        asks = {"role": "user", "content": f"{SEEDS[0]}\n{row.query}"}
        answers = {"role": "assistant", "content": row.target}
        text = tokenizer.apply_chat_template([asks, answers], tokenize=False)
        whole = tokenizer(text[: text.rindex(end) + len(end)], add_special_tokens=False)["input_ids"]
        tokens = [t if t >= 0 else encoded.slots.flat_ids[-1 - t] for t in example.tokens]
        assert [*tokens, *example.target] == whole
        targets.append(list(example.target))
    return targets
