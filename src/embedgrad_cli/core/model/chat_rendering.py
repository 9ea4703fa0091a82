"""A chat template at work. It is a program that comes with the model: it gets some seconds and some memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, TemplateSyntaxError

from embedgrad_cli.errors import ModelError, first_line
from embedgrad_cli.guards.limits import TookTooLong, at_most, with_memory

SECONDS = 2.0  # of computing, for one conversation; the usual one takes less than a millisecond
BYTES = 1 << 30


class Refused(Exception):
    """The chat template refuses a conversation, in words that complete a sentence."""


def apply_template(tokenizer: Any, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = False) -> str:
    """A conversation as text.

    Raises:
        Refused: the template raises, takes more time or memory than it gets, or writes what is no text.
    """
    try:
        with at_most(SECONDS), with_memory(BYTES):
            text: str = tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
            )
            text.encode()
            return text
    except TookTooLong as error:
        why = f"{error}, and may never end"
    except MemoryError:
        why = f"it takes more than {BYTES >> 20} MiB of memory"
    except UnicodeEncodeError:
        why = "it writes half of a character, which UTF-8 cannot"
    except Exception as error:  # whatever its author thought of
        why = first_line(error)
    raise Refused(why)  # not within `except`, where all that the template holds would be kept


def refuse_powers(templates: str | Mapping[str, str]) -> None:
    """Refuse a chat template that computes a power: 9**9**9 is one operation of hours, which no limit of time ends.

    Raises:
        ModelError: it does.
    """
    for template in [templates] if isinstance(templates, str) else templates.values():
        if _has_power(template):
            raise ModelError(
                "the model's chat template computes a power (**), which no conversation needs and which may never "
                "end. Take it out of the template (chat_template.jinja, or the key chat_template in "
                "tokenizer_config.json), or leave the template out: model.template=plain."
            )


def _has_power(template: str) -> bool:
    try:
        return any((kind, word) == ("operator", "**") for _, kind, word in Environment().lex(template))
    except TemplateSyntaxError:  # which rendering says better
        return False
