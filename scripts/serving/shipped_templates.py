"""Chat templates that models are shipped with, with a prompt put into them: llama.cpp's Jinja beside transformers'."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from embedgrad_cli.exports.chat_template import carrying, told_nothing
from embedgrad_cli.exports.slot_text import Turn
from serving.llamacpp import Messages, RequestRefused, llama_server, rendered, special_texts

PROMPT = "<|embedgrad_0|><|embedgrad_1|>"
PLACEMENTS: dict[str, Sequence[Turn]] = {
    "no prompt": [],
    "system": [Turn("system", (PROMPT,)), Turn("user", (None,))],
    "around the query": [Turn("user", (PROMPT, "\n", None, "\n", PROMPT))],
}
ASKED, ANSWERED = {"role": "user", "content": 'Is "7 < 12"?\nSay <b>yes</b>.'}, {"role": "assistant", "content": "yes"}
CONVERSATIONS: Sequence[Messages] = [
    [ASKED],
    [ASKED, ANSWERED, {"role": "user", "content": "And 12?"}],
    [{"role": "system", "content": "Be brief."}, ASKED],
]


@dataclass(frozen=True)
class Renderings:
    """One template with a prompt in it: what became of the sample conversations.

    `refused` are those that at least one of both does not render, as Gemma's template takes no system turn.
    """

    name: str
    placement: str
    alike: int
    different: int
    refused: int


def compare_templates(templates: Path, server: Path, gguf: Path, tokenizer: Any, work: Path) -> Iterator[Renderings]:
    """The templates in a folder as they are, and with a prompt in them. Those that trl trains with are left out."""
    for file in sorted(templates.glob("*.jinja")):
        if file.stem.endswith("_training"):
            continue
        for placement, turns in PLACEMENTS.items():
            template = file.read_text(encoding="utf-8")
            if turns:
                template = str(told_nothing(carrying(template, turns)))
            carrier = work / "chat_template.jinja"
            carrier.write_text(template, encoding="utf-8")
            found, marks = _by_server(server, gguf, work, carrier)
            expected = [_by_transformers(tokenizer, template, messages, marks) for messages in CONVERSATIONS]
            pairs = [pair for pair in zip(expected, found, strict=True) if None not in pair]
            alike = sum(one == other for one, other in pairs)
            refused = len(CONVERSATIONS) - len(pairs)
            yield Renderings(file.stem, placement, alike, len(pairs) - alike, refused)


def _by_server(server: Path, gguf: Path, work: Path, carrier: Path) -> tuple[list[str | None], dict[str, str]]:
    """What llama.cpp renders, and its special tokens. It does not start with a template that never works."""
    try:
        with llama_server(server, gguf, work / "templates.log", "--chat-template-file", str(carrier)) as url:
            return [_by_llamacpp(url, messages) for messages in CONVERSATIONS], special_texts(url)
    except RuntimeError:
        return [None] * len(CONVERSATIONS), {}


def _by_transformers(tokenizer: Any, template: str, messages: Messages, marks: Mapping[str, str]) -> str | None:
    """`marks` are the texts of the special tokens, which the file may name where the tokenizer has none."""
    settings = {"chat_template": template, "tokenize": False, "add_generation_prompt": True, **marks}
    try:
        return str(tokenizer.apply_chat_template(list(messages), **settings))
    except jinja2.TemplateError:
        return None


def _by_llamacpp(url: str, messages: Messages) -> str | None:
    try:
        return rendered(url, messages)
    except RequestRefused:
        return None
