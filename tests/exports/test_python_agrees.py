"""The Python interface and format=model give the model the same tokens, for any conversation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import CHAT_TEMPLATE, PLACEMENTS, make_tokenizer, shared_data
from tests.exports.conftest import Case, make_case
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, AutoTokenizer

import embedgrad_cli
from embedgrad_cli.config.schema import Message, TemplateConfig

OWN = {"role": "system", "content": "Be brief. {prompt} {query}"}  # what looks like a field is the client's text
ASKS = {"role": "user", "content": "How many?"}
HISTORY = [{"role": "user", "content": "Tom has 3 apples."}, {"role": "assistant", "content": "I see."}]
CONVERSATIONS = [[ASKS], [OWN, ASKS], [*HISTORY, ASKS], [OWN, *HISTORY, ASKS]]


def merging_lines() -> Any:
    """Tokens for ".\\n" and ".\\n\\n", as Qwen's and Llama 3's tokenizers have."""
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in (".\n\n", ".\n")])
    return tokenizer


def assert_agree(case: Case, folder: Path, conversations: list[list[dict[str, str]]]) -> None:
    assert case.export("model", folder / "out") == 0
    exported: Any = AutoModelForCausalLM.from_pretrained(folder / "out")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder / "out")
    prompt = embedgrad_cli.load(case.artifact)
    for turns in conversations:
        found = prompt.apply(case.model.network, case.model.tokenizer, turns)["inputs_embeds"][0]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        torch.testing.assert_close(found, exported.get_input_embeddings()(ids)[0].detach())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("placement", "architecture", "merges"),
    [
        ("both-sides", "qwen2", False),
        ("both-sides", "qwen2", True),
        ("both-sides", "gemma", True),
        ("before-query", "llama", True),
        ("system", "gemma", False),
        ("after-query", "llama", False),
    ],
)
def test_any_conversation(placement: str, architecture: str, merges: bool, tmp_path: Path) -> None:
    tokenizer = merging_lines() if merges else None
    tied = architecture == "gemma"
    assert_agree(make_case(tmp_path, architecture, placement, tied=tied, tokenizer=tokenizer), tmp_path, CONVERSATIONS)


@pytest.mark.slow
def test_a_real_tokenizer(tmp_path: Path) -> None:
    """Its chat template writes a system turn of its own where a conversation has none."""
    tokenizer: Any = AutoTokenizer.from_pretrained(shared_data("tokenizers/qwen2.5"))
    assert_agree(make_case(tmp_path, placement="both-sides", tokenizer=tokenizer), tmp_path, CONVERSATIONS)


def test_text_behind_the_prompt_in_its_system_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here a slot's last token covers a line break of the template, in training and in both renderings."""
    messages = [Message("system", "{prompt}\nGive the answer."), Message("user", "{query}")]
    monkeypatch.setitem(PLACEMENTS, "inside", TemplateConfig(messages, "{prompt}\n{query}"))
    case = make_case(tmp_path, placement="inside", tokenizer=merging_lines())
    assert case.model.tokenizer.decode(case.prompt.slots.flat_ids).endswith(".\n")
    assert_agree(case, tmp_path, CONVERSATIONS)


def test_a_chat_template_that_ends_in_a_blank(tmp_path: Path) -> None:
    """The blank is the answer's, in a conversation of any length."""
    tokenizer = merging_lines()
    tokenizer.chat_template = CHAT_TEMPLATE.replace("assistant\n", "assistant: ")
    case = make_case(tmp_path, placement="both-sides", tokenizer=tokenizer)
    assert tokenizer.decode(case.examples[0].tokens[-1:]) == ":"
    assert_agree(case, tmp_path, CONVERSATIONS)


def test_a_template_that_writes_a_system_turn_where_there_is_none(tmp_path: Path) -> None:
    """As Qwen2.5's does; the prompt stands in the user's turn, so the conversation may begin with either."""
    tokenizer = merging_lines()
    default = "<|im_start|>system\nGive the answer.<|im_end|>\n"
    tokenizer.chat_template = "{% if messages[0]['role'] != 'system' %}" + default + "{% endif %}" + CHAT_TEMPLATE
    assert_agree(make_case(tmp_path, placement="before-query", tokenizer=tokenizer), tmp_path, CONVERSATIONS)


def test_a_conversation_about_the_placeholder(case: Case, tmp_path: Path) -> None:
    about = [{"role": "system", "content": "What is <|embedgrad|>?"}, ASKS]
    assert_agree(case, tmp_path, [about])
