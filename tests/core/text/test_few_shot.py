"""Worked examples are part of the template: rendered as a person would write them, and shared by all examples."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.conftest import PLACEMENTS, ROWS, SEEDS, make_model

from embedgrad_cli.config.task_schema import WorkedExample
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.plain import plain_losses
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.encoding import encode
from embedgrad_cli.core.text.few_shot import with_examples
from embedgrad_cli.core.text.marked_tokens import trunk_length
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.errors import DataError

SHOTS = [WorkedExample("1 + 1?", "2"), WorkedExample("2 + 2?", "4")]


def test_as_text_they_stand_before_the_query_in_its_turn() -> None:
    template = with_examples(PLACEMENTS["after-query"], SHOTS, "text")
    assert [m.content for m in template.messages] == ["1 + 1?\n2\n\n2 + 2?\n4\n\n{query}\n{prompt}"]
    assert template.text == "1 + 1?\n2\n\n2 + 2?\n4\n\n{query}\n{prompt}\n"


def test_as_turns_they_alternate_without_the_prompt() -> None:
    template = with_examples(PLACEMENTS["after-query"], SHOTS, "turns")
    assert [(m.role, m.content) for m in template.messages] == [
        ("user", "1 + 1?"),
        ("assistant", "2"),
        ("user", "2 + 2?"),
        ("assistant", "4"),
        ("user", "{query}\n{prompt}"),
    ]
    system = with_examples(PLACEMENTS["system"], SHOTS[:1], "turns")
    assert [m.role for m in system.messages] == ["system", "user", "assistant", "user"]


def test_without_examples_the_template_is_left_alone() -> None:
    before = copy.deepcopy(PLACEMENTS["system"])
    assert with_examples(PLACEMENTS["system"], [], "turns") is PLACEMENTS["system"]
    with_examples(PLACEMENTS["system"], SHOTS, "text")
    assert PLACEMENTS["system"] == before


def test_an_example_that_looks_like_a_template_is_refused() -> None:
    with pytest.raises(DataError, match=r"2 of task\.fewshot.*\{query\}"):
        with_examples(PLACEMENTS["system"], [SHOTS[0], WorkedExample("{query}", "x")], "text")


@pytest.mark.parametrize("style", ["text", "turns"])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_step_0_parity_and_a_shared_trunk(placement: str, style: str) -> None:
    model = make_model()
    seeds = SEEDS if placement == "both-sides" else SEEDS[:1]
    template = with_examples(PLACEMENTS[placement], SHOTS, style)  # type: ignore[arg-type]
    prompt_template = PromptTemplate(template, seeds, model.tokenizer, model.is_chat)
    encoded = encode(ROWS, prompt_template, model, append_end_token=True)
    messages = [{"role": m.role, "content": m.content} for m in template.messages]
    for row, example in zip(ROWS, encoded.examples, strict=True):
        filled = [{**m, "content": fill(m["content"], row.query, seeds)} for m in messages]
        text = model.tokenizer.apply_chat_template(filled, tokenize=False, add_generation_prompt=True)
        ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
        flat = encoded.slots.flat_ids
        assert [flat[-1 - token] if token < 0 else token for token in example.tokens] == ids
    shown = len(model.tokenizer("1 + 1?\n2\n\n2 + 2?\n4", add_special_tokens=False)["input_ids"])
    assert trunk_length(encoded.examples) >= shown
    prompt = SoftPrompt.from_seed(encoded.slots, model)
    forward = Forward(model, encoded.examples)
    with torch.no_grad():
        mean = forward.mean_loss(encoded.examples, prompt, 2)
        plain = plain_losses(model, encoded.examples, prompt).mean().item()
    assert mean == pytest.approx(plain, rel=1e-5)


def fill(content: str, query: str, seeds: list[str]) -> str:
    for number, seed in enumerate(seeds):
        content = content.replace(f"{{prompt.{number}}}", seed)
    return content.replace("{prompt}", seeds[0]).replace("{query}", query)
