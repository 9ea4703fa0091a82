"""`format=peft`: PEFT computes what embedgrad does, or the export is refused."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest
import torch
from peft import PeftModel
from tests.conftest import PLACEMENTS, SEEDS
from tests.exports.conftest import NEW_TOKENS, QUERIES, Case, ids_of, make_case, merging_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from embedgrad_cli.config.schema import Message, TemplateConfig
from embedgrad_cli.exports import peft

TWO_BEFORE = TemplateConfig(
    [Message("system", "{prompt.0}"), Message("user", "{prompt.1}\n{query}")], "{prompt.0}\n{prompt.1}\n{query}\n"
)


def assert_same(case: Case, folder: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(case.folder, dtype="auto")
    network, tokenizer = PeftModel.from_pretrained(base, folder), AutoTokenizer.from_pretrained(folder)
    for query, logits, answer in zip(QUERIES, case.logits(), case.answers(), strict=True):
        ids = ids_of(tokenizer, query)
        torch.testing.assert_close(network(input_ids=ids).logits[0, -1], logits, rtol=1e-5, atol=1e-5)
        ends = sorted(case.model.end_ids)
        output = network.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            eos_token_id=ends,
            pad_token_id=0,
        )
        tokens = output[0, ids.shape[1] :].tolist()
        assert tokens[: next((i for i, t in enumerate(tokens) if t in ends), len(tokens))] == answer


@pytest.mark.parametrize(
    ("architecture", "tied", "placement"),
    [
        ("qwen2", True, "system"),
        ("llama", False, "before-query"),
        ("gemma", True, "before-query"),
        ("gpt2", True, "before-query"),
        ("gpt_neox", False, "system"),
        ("gemma3", True, "system"),
    ],
)
def test_an_adapter_gives_the_same_logits(architecture: str, tied: bool, placement: str, tmp_path: Path) -> None:
    case = make_case(tmp_path, architecture, placement, tied=tied)
    assert case.export("peft", tmp_path / "out") == 0
    assert_same(case, tmp_path / "out")


def test_a_model_with_little_attention(tmp_path: Path) -> None:
    case = make_case(tmp_path, "nemotron_h", tied=False)
    assert case.export("peft", tmp_path / "out") == 0
    assert_same(case, tmp_path / "out")


@pytest.mark.parametrize("architecture", ["mamba", "minimax"])
def test_a_model_whose_cache_peft_does_not_know_is_refused(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = make_case(tmp_path, architecture, tied=architecture == "mamba")
    assert case.export("peft", tmp_path / "out") == 2
    assert "format=model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    # Its logits would be right, and what it generates would not, without a word.
    monkeypatch.setattr(peft, "_check_cache", lambda source: None)
    assert case.export("peft", tmp_path / "out") == 0
    with pytest.raises(AssertionError, match=r"assert \["):
        assert_same(case, tmp_path / "out")


def test_several_slots_before_the_query(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PLACEMENTS, "two-before", TWO_BEFORE)
    case = make_case(tmp_path, placement="two-before", seeds=SEEDS)
    assert case.export("peft", tmp_path / "out") == 0
    assert_same(case, tmp_path / "out")


def test_a_prompt_may_say_what_the_chat_template_calls_its_parts(tmp_path: Path) -> None:
    case = make_case(tmp_path, seeds=["Give the REASON and the ORIGINAL MARK."])
    assert case.export("peft", tmp_path / "out") == 0
    assert_same(case, tmp_path / "out")


def test_a_token_across_the_edge_belongs_to_the_adapter(tmp_path: Path) -> None:
    case = make_case(tmp_path, placement="before-query", tokenizer=merging_tokenizer())
    assert case.export("peft", tmp_path / "out") == 0
    assert_same(case, tmp_path / "out")


def test_a_plain_text_model(tmp_path: Path) -> None:
    case = make_case(tmp_path, "gpt2", "before-query", chat=False)
    assert case.export("peft", tmp_path / "out") == 0
    assert_same(case, tmp_path / "out")


def test_a_blank_at_the_end_is_the_answer_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cue = TemplateConfig([], "{prompt}\n{query}\nAnswer: ")
    monkeypatch.setitem(PLACEMENTS, "cue", cue)
    case = make_case(tmp_path, "gpt2", "cue", chat=False)
    assert case.model.tokenizer.decode(case.examples[0].tokens[-1:]) == ":"
    assert case.export("peft", tmp_path / "out") == 0
    assert_same(case, tmp_path / "out")


@pytest.mark.parametrize("placement", ["after-query", "both-sides"])
def test_a_prompt_behind_the_query_is_refused_with_what_works(
    placement: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = make_case(tmp_path, placement=placement)
    assert case.export("peft", tmp_path / "out") == 2
    errors = capsys.readouterr().err
    assert "format=model" in errors
    assert "format=embeds" in errors
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == []


def test_a_conversation_that_does_not_begin_with_the_prompt_is_refused(tmp_path: Path) -> None:
    case = make_case(tmp_path, placement="before-query")
    assert case.export("peft", tmp_path / "out") == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How many?"}]
    with pytest.raises(jinja2.TemplateError, match="turns"):
        tokenizer.apply_chat_template(turns)


def test_a_system_turn_after_the_prompt_s_is_fine(case: Case, tmp_path: Path) -> None:
    assert case.export("peft", tmp_path / "out") == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How many?"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == "\n\nBe brief.<|im_end|>\n<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n"
