"""Chat templates that models are shipped with, with a prompt put into them: llama.cpp's Jinja beside transformers'."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from embedgrad_cli.exports.chat_template import carrying
from embedgrad_cli.exports.slot_text import Turn
from serving.llamacpp import Messages, RequestRefused, llama_server, rendered, special_texts

PROMPT = "<|embedgrad_0|><|embedgrad_1|>"
PLACEMENTS: dict[str, Sequence[Turn]] = {
    "system": [Turn("system", (PROMPT,)), Turn("user", (None,))],
    "before the query": [Turn("user", (PROMPT + "\n", None))],
    "around it": [Turn("user", (PROMPT, "\n", None, "\n", PROMPT))],
}
ASKED, ANSWERED = {"role": "user", "content": 'Is "7 < 12"?\nSay <b>yes</b>.'}, {"role": "assistant", "content": "yes"}
CONVERSATIONS: Sequence[Messages] = [
    [ASKED],
    [ASKED, ANSWERED, {"role": "user", "content": "And 12?"}],
    [{"role": "system", "content": "Be brief."}, ASKED],
]


def compare_templates(
    templates: Path, server: Path, gguf: Path, tokenizer: Any, work: Path
) -> Iterator[tuple[str, int, int, int]]:
    """Yields: of each template and placement a name, and how many conversations both render alike, only one of both
    renders, and both render differently. What neither does (a second system turn in Gemma's) is left out."""
    for file in sorted(templates.glob("*.jinja")):
        for placement, turns in PLACEMENTS.items():
            template = str(carrying(file.read_text(encoding="utf-8"), turns))
            carrier = work / "chat_template.jinja"
            carrier.write_text(template, encoding="utf-8")
            name = f"{file.stem}, {placement}"
            with llama_server(server, gguf, work / "templates.log", "--chat-template-file", str(carrier)) as url:
                found = [_by_llamacpp(url, messages) for messages in CONVERSATIONS]
                marks = special_texts(url)
            expected = [_by_transformers(tokenizer, template, messages, marks) for messages in CONVERSATIONS]
            pairs = [pair for pair in zip(expected, found, strict=True) if pair != (None, None)]
            alike = sum(one == other for one, other in pairs)
            by_one = sum(None in pair for pair in pairs)
            yield name, alike, by_one, len(pairs) - alike - by_one


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
