"""A template's messages with texts in their places, as a chat template or a server is given them."""

from __future__ import annotations

from collections.abc import Callable

from embedgrad_cli.config.fields import PLACE, SLOT_AND_SPACE
from embedgrad_cli.config.schema import TemplateConfig
from embedgrad_cli.core.text.rendering_check import Messages


def messages_of(template: TemplateConfig, value: Callable[[str], str], has_prompt: bool = True) -> Messages:
    """The messages with `value(name)` in place of each field.

    Args: has_prompt: if not, slots are left out, and turns that hold nothing else.
    """
    contents = [
        message.content if has_prompt else SLOT_AND_SPACE.sub("", message.content).strip()
        for message in template.messages
    ]
    filled = [fill(content, value) for content in contents]
    return [{"role": m.role, "content": text} for m, text in zip(template.messages, filled, strict=True) if text]


def fill(content: str, value: Callable[[str], str]) -> str:
    """A text with `value(name)` in place of each field."""
    return PLACE.sub(lambda match: value(match[1]), content)
