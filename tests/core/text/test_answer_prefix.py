"""An answer is trained, scored and generated where the chat template has answers."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conftest import PLACEMENTS, ROWS, SEEDS, make_model, make_tokenizer, sentencepiece_tokenizer

from embedgrad_cli.core.text.answer_tokens import encode_choices
from embedgrad_cli.core.text.conversation import render_turns
from embedgrad_cli.core.text.encoding import encode
from embedgrad_cli.core.text.template import PromptTemplate

SYSTEM = (
    "{% set system = messages[0].content if messages[0].role == 'system' else '' %}"
    "{% set rest = messages[1:] if system else messages %}"
)
LLAMA_2 = (
    SYSTEM + "{% for m in rest %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + (system + '\\n' if loop.first "
    "and system else '') + m.content + ' [/INST]' }}{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)  # fmt: skip
QWEN_3 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>"
    "\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
GPT_OSS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}{{ '<|channel|>final' if m.role == 'assistant' }}<|message|>"
    "{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)
R1 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


def told(template: str, make: Any = make_tokenizer) -> Any:
    tokenizer = make()
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("placement", ["system", "before-query", "after-query"])
@pytest.mark.parametrize(
    ("tokenizer", "prefix", "end"),
    [
        (told(LLAMA_2, sentencepiece_tokenizer), " ", "</s>"),
        (told(QWEN_3), "<think>\n\n</think>\n\n", "<|im_end|>"),
        (told("{% set enable_thinking = false %}" + QWEN_3), "", "<|im_end|>"),
        (told(GPT_OSS), "<|channel|>final<|message|>", "<|im_end|>"),
        (told(GPT_OSS.replace("<|message|>", "<|message|> ")), "<|channel|>final<|message|> ", "<|im_end|>"),
    ],
    ids=["llama-2", "qwen-3", "qwen-3 told not to think", "gpt-oss", "a channel and a blank"],
)
def test_a_conversation_is_the_template_s_up_to_the_end_of_its_answer(
    tokenizer: Any, prefix: str, end: str, placement: str
) -> None:
    prompt_template = PromptTemplate(PLACEMENTS[placement], SEEDS, tokenizer, True)
    assert prompt_template.prefix == prefix
    model = make_model()
    model.tokenizer = tokenizer
    rows = [row for row in ROWS if row.target.isascii()]
    encoded = encode(rows, prompt_template, model, append_end_token=True)
    for row, example in zip(rows, encoded.examples, strict=True):
        fill = {"{prompt}": SEEDS[0], "{query}": row.query}
        messages = [{"role": m.role, "content": m.content} for m in PLACEMENTS[placement].messages]
        for message in messages:
            for place, text in fill.items():
                message["content"] = message["content"].replace(place, text)
        answered = [*messages, {"role": "assistant", "content": row.target}]
        text = tokenizer.apply_chat_template(answered, tokenize=False)
        whole = tokenizer(text[: text.rindex(end) + len(end)], add_special_tokens=False)["input_ids"]
        tokens = [t if t >= 0 else encoded.slots.flat_ids[-1 - t] for t in example.tokens]
        assert [*tokens, *example.target] == whole
        [score] = encode_choices([row.target], prompt_template).ids
        assert list(score) == whole[len(tokens) : len(tokens) + len(score)]
        asked = [{"role": "user", "content": row.query}]
        rendered = render_turns(asked, PLACEMENTS[placement], SEEDS, tokenizer, True)
        assert rendered.text == prompt_template.render(row.query).text


def test_where_answers_do_not_follow_the_generation_prompt_it_is_left_alone() -> None:
    prompt_template = PromptTemplate(PLACEMENTS["system"], SEEDS, told(R1), True)
    assert prompt_template.prefix == ""
    assert prompt_template.render("How many?").text.endswith("<think>\n")
