"""Every `{…}` that a setting may hold: the places of a template, the texts that fill them, the fields of a data row."""

from __future__ import annotations

import re
from collections.abc import Iterator

from embedgrad_cli.config.schema import PromptConfig, SeedConfig, TemplateConfig

QUERY = "query"
QUERY_PLACE = "{query}"
SLOT = re.compile(r"\{prompt(?:\.(\d+))?\}")
SLOT_AND_SPACE = re.compile(SLOT.pattern + r"[ \n]?")
DEMONSTRATIONS_PLACE = "{demonstrations}"  # in the seed's text
PLACE = re.compile(r"\{(query|prompt(?:\.\d+)?)\}")  # its one group is the place's name: "query", "prompt", "prompt.1"
DATA_FIELD = re.compile(r"\{[^{}]+\}")


def prompt_number(name: str) -> int:
    """Which of the seed prompts fills a slot: `prompt_number("prompt.1")` is 1, and "prompt" is the first, 0."""
    return int(name.partition(".")[2] or 0)


def prompt_numbers(content: str) -> Iterator[int]:
    """`prompt_number` of every slot in a text, in order."""
    return (int(number or 0) for number in SLOT.findall(content))


def num_prompts(template: TemplateConfig) -> int:
    """How many texts the template asks for: one more than the largest N of {prompt.N}."""
    contents = [template.text or "", *(message.content or "" for message in template.messages or [])]
    return 1 + max((number for content in contents for number in prompt_numbers(content)), default=0)


def seeds_of(config: PromptConfig | SeedConfig) -> tuple[str, ...]:
    """The seed prompts, one per `{prompt.N}`."""
    return as_texts(config.text or [])


def as_texts(text: str | list[str]) -> tuple[str, ...]:
    """One text, or several, as several."""
    return (text,) if isinstance(text, str) else tuple(text)
