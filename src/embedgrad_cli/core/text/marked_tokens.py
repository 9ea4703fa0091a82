"""Conversations as token sequences in which the slots' tokens are marked.

Every example is tokenised in full with the seed text in its place, exactly as a user's text prompt would be. A slot is
the set of tokens that overlap the seed's characters. In `Example.tokens` a slot token is the negative number
`-1 - i`, where i counts rows of the soft prompt; every other number is a vocabulary id. So two examples share a token
exactly where they share a number, and the shared prefix (trunk) is their longest common one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tokenizers import AddedToken

from embedgrad_cli.core.text.template import Rendered

PLACEHOLDER = "<|embedgrad|>"


@dataclass(frozen=True, slots=True)
class Example:
    """One tokenised row: `tokens` up to where the answer begins, `target` the tokens the loss is taken on."""

    id: str
    tokens: tuple[int, ...]
    target: tuple[int, ...]

    @property
    def length(self) -> int:
        return len(self.tokens) + len(self.target)


@dataclass(frozen=True, slots=True)
class Slots:
    """The token ids of the seed, slot by slot: what the soft prompt starts from."""

    ids: tuple[tuple[int, ...], ...]

    @property
    def num_tokens(self) -> int:
        return sum(len(ids) for ids in self.ids)

    @property
    def flat_ids(self) -> list[int]:
        return [token for ids in self.ids for token in ids]


def token_ids(tokens: Sequence[int], slots: Slots) -> list[int]:
    """The vocabulary ids of marked tokens, the seed's in the slots."""
    seed_ids = slots.flat_ids
    return [token if token >= 0 else seed_ids[-1 - token] for token in tokens]


def first_slot(tokens: Sequence[int]) -> int:
    """Where the first slot begins among tokens as in `Example.tokens`; after the last one if there is none."""
    return next((i for i, token in enumerate(tokens) if token < 0), len(tokens))


def trunk_length(examples: Sequence[Example]) -> int:
    """Length of the longest prefix all examples share, in tokens, short of the last token before an answer."""
    if not examples:
        return 0
    first, limit = examples[0].tokens, min(len(e.tokens) for e in examples) - 1
    for example in examples:
        if example.tokens[:limit] != first[:limit]:
            limit = next(i for i in range(limit) if example.tokens[i] != first[i])
    return limit


def tokenise(
    rendered: Sequence[Rendered], tokenizer: Any, adds_special_tokens: bool
) -> list[tuple[tuple[int, ...], Slots]]:
    """The tokens of each rendering, with its slots' tokens marked as in `Example.tokens`, and what stood there."""
    batch = tokenizer(
        [r.text for r in rendered],
        add_special_tokens=adds_special_tokens,
        return_offsets_mapping=True,
        return_attention_mask=False,
    )
    results = []
    for ids, offsets, rendering in zip(batch["input_ids"], batch["offset_mapping"], rendered, strict=True):
        tokens, slots = list(ids), []
        row = 0  # of the soft prompt
        for begin, end in rendering.slots:
            inside = [i for i, (a, b) in enumerate(offsets) if a < end and b > begin]
            slots.append(tuple(ids[i] for i in inside))
            for i in inside:
                tokens[i], row = -1 - row, row + 1
        results.append((tuple(tokens), Slots(tuple(slots))))
    return results


def tokenise_apart(rendered: Rendered, tokenizer: Any, slots: Slots) -> tuple[int, ...] | None:
    """The tokens of a chat whose slots merge with nothing beside them, as added tokens do; marked as by `tokenise`.

    Returns: None where the slots' tokens are not the seed's text and nothing else, so that they cannot stand apart.
    """
    text, end_of_last = "", 0
    for (begin, end), ids in zip(rendered.slots, slots.ids, strict=True):
        if tokenizer.decode(list(ids)) != rendered.text[begin:end]:
            return None
        text += rendered.text[end_of_last:begin] + PLACEHOLDER
        end_of_last = end
    with_placeholder = _with_placeholder(tokenizer)
    ids = with_placeholder(text + rendered.text[end_of_last:], add_special_tokens=False)["input_ids"]
    placeholder = with_placeholder.convert_tokens_to_ids(PLACEHOLDER)
    if ids.count(placeholder) != len(slots.ids):  # a conversation about placeholders
        return None
    rows = iter(range(slots.num_tokens))
    groups = iter([[-1 - next(rows) for _ in slot] for slot in slots.ids])
    return tuple(row for token in ids for row in (next(groups) if token == placeholder else [token]))


@lru_cache(maxsize=1)
def _with_placeholder(tokenizer: Any) -> Any:
    copied = copy.deepcopy(tokenizer)
    copied.add_tokens([AddedToken(PLACEHOLDER, special=True, normalized=False)], special_tokens=True)
    return copied
