"""A stop string is found wherever the edges of tokens are, and what stands before it is left whole."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conftest import make_tokenizer, shared_data

from embedgrad_cli.core.text.stop_strings import MARGIN, StopStrings

TEXT = "Füße 🙂 kosten 3 € — also 12.\n#### 12🙂\nQuestion: Tom has 3 apples.\nQuestion: How many?"


def byte_tokenizer() -> Any:
    return make_tokenizer()


def qwen() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(shared_data("tokenizers/qwen2.5"))


def sentencepiece() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(shared_data("models/stories260K"))


@pytest.mark.parametrize("make", [byte_tokenizer, qwen, sentencepiece])
@pytest.mark.parametrize("stop", ["\nQuestion:", "\n", "🙂", "2🙂\nQ", "€ — a", "ü", "12", "apples", "no such text"])
def test_the_answer_is_what_stands_before_the_first_one(make: Any, stop: str) -> None:
    tokenizer = make()
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    stops, whole = StopStrings((stop,), tokenizer), tokenizer.decode(ids)
    assert stops.text_before(ids) == whole.partition(stop)[0]
    ended = [n for n in range(len(ids) + 1) if stop in tokenizer.decode(ids[:n])]
    assert stops.num_tokens(ids) == (ended[0] if ended else None)
    assert [n for n in range(len(ids) + 1) if stops.ends(ids[:n])][:1] == ended[:1]
    if ended:
        assert stops.text_before(ids[: ended[0]]) == whole.partition(stop)[0]


def test_a_long_answer_is_not_decoded_with_every_token() -> None:
    tokenizer, decoded = make_tokenizer(), list[int]()

    class Counting:
        added_tokens_decoder = tokenizer.added_tokens_decoder

        def decode(self, ids: list[int]) -> str:
            decoded.append(len(ids))
            return tokenizer.decode(ids)

    stops = StopStrings(("\nQuestion:",), Counting())
    ids = tokenizer("apples and pages " * 60)["input_ids"]
    assert not any(stops.ends(ids[:n]) for n in range(len(ids)))
    assert max(decoded) <= len("\nQuestion:") + MARGIN


def test_special_tokens_end_an_answer_and_are_not_in_it() -> None:
    tokenizer = make_tokenizer()
    ids = tokenizer("<|im_start|>12 apples<|im_end|>\nuser", add_special_tokens=False)["input_ids"]
    assert StopStrings(("<|im_end|>",), tokenizer).text_before(ids) == "12 apples"
    for texts in [(), ("im",), ("s\nu",)]:
        assert StopStrings(texts, tokenizer).text_before(ids) == "12 apples\nuser".partition(*texts or ("none",))[0]


def test_the_earliest_of_several_counts() -> None:
    tokenizer = make_tokenizer()
    ids = tokenizer("12 apples\n\nQ: how many?", add_special_tokens=False)["input_ids"]
    assert StopStrings(("Q:", "\nQ:", "many"), tokenizer).text_before(ids) == "12 apples\n"
