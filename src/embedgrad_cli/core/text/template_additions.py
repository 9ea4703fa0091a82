"""What a chat template writes into a conversation by itself: a system turn that nobody gave, a date, a preamble.

No tokenizer says which of its template's text is markup, so this is told by what templates have in common: markup is
special tokens, tags without blanks (`<|user|>`, `[INST]`), the name of a role on a line of its own, and what stands
before every later turn of the user. What else has letters, up to the last message, is text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from embedgrad_cli.core.model.chat_rendering import Refused, apply_template
from embedgrad_cli.core.text.template import PromptTemplate

TAG = re.compile(r"<+[^<>\s]+>+|\[/?[A-Z_]+\]")
ROLE = re.compile(r"\W*(system|developer|user|human|assistant|model|tool)\W*", re.IGNORECASE)
SYSTEM = re.compile(r"sys|developer", re.IGNORECASE)
FIRST_MARK = 0xE100  # of Unicode's private use area


@dataclass(frozen=True)
class Addition:
    """Text of the chat template's own. `is_system_turn`: it is a system turn, and the messages have none."""

    text: str
    is_system_turn: bool


def added_by(prompt_template: PromptTemplate) -> Addition | None:
    """What the chat template adds to the conversations of a prompt template; None if nothing can be told of."""
    if not prompt_template.is_chat:
        return None
    roles, tokenizer = prompt_template.roles, prompt_template.tokenizer
    heads = _before_messages(roles, tokenizer)
    turn = (_before_messages(["user", "assistant", "user"], tokenizer) or [""])[-1]
    texts, has_system_turn = [], False
    for role, head in zip(roles, heads, strict=False):
        own = head[: len(head) - _common_end(head, turn)] if role == "user" else head
        text, markup = _without_markup(own, tokenizer)
        if text:
            texts.append(text)
            has_system_turn |= bool(SYSTEM.search(markup))
    if not texts:
        return None
    return Addition("\n".join(texts), has_system_turn and not {"system", "developer"} & set(roles))


def _before_messages(roles: list[str], tokenizer: Any) -> list[str]:
    """What a rendering has before each message; nothing if it does not have every message once, in order."""
    marks = [chr(FIRST_MARK + number) for number in range(len(roles))]
    messages = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
    try:
        rendered = apply_template(tokenizer, messages, add_generation_prompt=True)
    except Refused:  # such a conversation is not what is sent
        return []
    parts = re.split("|".join(marks), rendered)
    return parts[:-1] if [c for c in rendered if c in marks] == marks else []


def _common_end(a: str, b: str) -> int:
    """How many last characters two texts share."""
    pairs = zip(reversed(a), reversed(b), strict=False)
    return next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)))


def _without_markup(text: str, tokenizer: Any) -> tuple[str, str]:
    """The lines of a text that are not markup, and the markup."""
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.content.strip()]
    pattern = re.compile("|".join([*map(re.escape, sorted(special, key=len, reverse=True)), TAG.pattern]))
    lines = [line.strip() for line in pattern.sub("\n", text).splitlines()]
    markup = [*pattern.findall(text), *filter(ROLE.fullmatch, lines)]
    kept = [line for line in lines if any(map(str.isalpha, line)) and not ROLE.fullmatch(line)]
    return "\n".join(kept), " ".join(markup)
