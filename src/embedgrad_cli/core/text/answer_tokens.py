"""Answers as tokens behind a rendered template: targets, and labels that are ranked against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from embedgrad_cli.core.text.template import PromptTemplate


@dataclass(frozen=True, slots=True)
class Choices:
    """Labels that are ranked against each other, as token ids; `with_end` says whether these hold the turn's end."""

    names: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    with_end: bool

    @property
    def pairs(self) -> list[tuple[str, tuple[int, ...]]]:
        return list(zip(self.names, self.ids, strict=True))


def encode_choices(names: Sequence[str], prompt_template: PromptTemplate) -> Choices:
    """Labels as they are scored.

    The tokens of a label that begins another one ("1" and "10", digit by digit) are always the likelier ones. So where
    that is the case every label has the end of the turn behind it.
    """
    ids = tuple(continuation(name, prompt_template) for name in names)
    with_end = any(a == b[: len(a)] for i, a in enumerate(ids) for j, b in enumerate(ids) if i != j)
    if with_end:
        ids = tuple(whole_turn(name, prompt_template) for name in names)
    return Choices(tuple(names), ids, with_end)


def continuation(text: str, prompt_template: PromptTemplate) -> tuple[int, ...]:
    """Token ids of an answer that follows the rendered template, the template's trailing blank in front of it.

    The template's fixed tail is tokenised along, so that a tokenizer that marks the beginning of a text does not
    do so in the middle of one; where the two would merge, the answer stands alone, as it does when it is generated.
    """
    tail, text = prompt_template.tail, prompt_template.blank + text
    if not tail and prompt_template.blank:
        tail = "."  # for the query: a blank at the very beginning of a text may have another token
    before, joint, alone = prompt_template.tokenizer([tail, tail + text, text], add_special_tokens=False)["input_ids"]
    return tuple(joint[len(before) :] if joint[: len(before)] == before else alone)


def whole_turn(text: str, prompt_template: PromptTemplate) -> tuple[int, ...]:
    """`continuation` up to the end of the model's turn: what the template writes there, and the token that ends it."""
    end = prompt_template.turn_end
    ids = continuation(text + end.text, prompt_template)
    return ids if end.token_id is None else (*ids, end.token_id)
