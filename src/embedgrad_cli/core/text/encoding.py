"""From rendered conversations to token sequences in which the slots' tokens are marked.

Every example is tokenised in full with the seed text in its place, exactly as a user's text prompt would be. A slot is
the set of tokens that overlap the seed's characters. In `Example.tokens` a slot token is the negative number
`-1 - i`, where i counts rows of the soft prompt; every other number is a vocabulary id. So two examples share a token
exactly where they share a number, and the shared prefix (trunk) is their longest common one.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from tokenizers import AddedToken

from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.text.template import PromptTemplate, Rendered
from embedgrad_cli.errors import DataError, TemplateError
from embedgrad_cli.storage.interrupts import stop_if_asked

log = logging.getLogger(__name__)

TOKENIZER_BATCH = 1_000
PLACEHOLDER = "<|embedgrad|>"


class Row(Protocol):
    """What this module needs of a data row (see `tasks.rows.Row`)."""

    @property
    def id(self) -> str: ...
    @property
    def query(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def choices(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Choices:
    """Labels that are ranked against each other, as token ids; `with_end` says whether these hold the turn's end."""

    names: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    with_end: bool

    @property
    def pairs(self) -> list[tuple[str, tuple[int, ...]]]:
        return list(zip(self.names, self.ids, strict=True))


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


@dataclass(frozen=True)
class Encoded:
    examples: list[Example]
    slots: Slots
    skipped: list[str]


class Renderings:
    """The tokens of rows under one prompt template; those of a query are made once and kept.

    Rendering and tokenising many thousands of rows takes longer than training on some of them, and both the digest of
    a run and its training need all.
    """

    def __init__(self, prompt_template: PromptTemplate) -> None:
        self.prompt_template = prompt_template
        self._of_query: dict[str, tuple[tuple[int, ...], Slots]] = {}
        self._slots: dict[Slots, Slots] = {}  # nearly always one, whatever the number of rows

    def tokens_of(self, rows: Sequence[Row]) -> Iterator[tuple[tuple[int, ...], Slots]]:
        """The tokens of each row, with its slots' tokens marked as in `Example.tokens`, and what stood there.

        Raises:
            TemplateError: the chat template refuses or rewrites a query.
            StopAsked: between two batches.
        """
        for start in range(0, len(rows), TOKENIZER_BATCH):
            stop_if_asked()
            batch = rows[start : start + TOKENIZER_BATCH]
            self._add([row for row in batch if row.query not in self._of_query])
            yield from (self._of_query[row.query] for row in batch)

    def _add(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        rendered = [_render(row, self.prompt_template) for row in rows]
        tokenised = tokenise(rendered, self.prompt_template.tokenizer, self.prompt_template.adds_special_tokens)
        for row, (tokens, slots) in zip(rows, tokenised, strict=True):
            self._of_query[row.query] = (tokens, self._slots.setdefault(slots, slots))


def token_ids(tokens: Sequence[int], slots: Slots) -> list[int]:
    """The vocabulary ids of marked tokens, the seed's in the slots."""
    seed_ids = slots.flat_ids
    return [token if token >= 0 else seed_ids[-1 - token] for token in tokens]


def encode(
    rows: Sequence[Row],
    prompt_template: PromptTemplate,
    model: LanguageModel,
    *,
    append_end_token: bool,
    reserve: int = 0,
    fits_target: bool = True,
    too_long: str = "error",
    renderings: Renderings | None = None,
) -> Encoded:
    """Tokenise rows.

    Args:
        append_end_token: every target goes on to the end of its turn (`kind: generation`). A label's does only where
            its row's choices are scored with that end, see `encode_choices`.
        reserve: tokens that must fit after the conversation.
        fits_target: the target must fit there as well.
        too_long: `error`, or `skip` an example that does not fit the model's context and list it.
        renderings: under this prompt template, if some rows' are known already.

    Raises:
        TemplateError: a slot's tokens differ between examples because the query touches the prompt, or the chat
            template refuses or rewrites a query; or nothing stands before the answer.
        DataError: an example is longer than the model's context.
    """
    target_ids = _encode_targets(rows, prompt_template, append_end_token)
    renderings = renderings or Renderings(prompt_template)
    slots: Slots | None = None
    examples, skipped, limit = list[Example](), list[str](), model.max_length
    for row, (tokens, row_slots) in zip(rows, renderings.tokens_of(rows), strict=True):
        slots = slots or row_slots
        if row_slots != slots:
            raise _straddling(slots, row_slots, row.id, model.tokenizer)
        if not tokens:
            raise TemplateError(
                f"example {row.id}: the model's tokenizer makes no token of what stands before the answer, so nothing "
                "can be predicted from it. Give a template with more text in it, or a model with another tokenizer."
            )
        example = Example(row.id, tokens, target_ids[row.target, row.choices])
        needed = len(tokens) + max(reserve, len(example.target) if fits_target else 0)
        if limit is None or needed <= limit:
            examples.append(example)
        elif too_long == "skip":
            skipped.append(row.id)
        else:
            raise _too_long(example, needed, limit)
    if skipped:
        log.warning("%d of %d examples skipped: longer than the model's context", len(skipped), len(rows))
    return Encoded(examples, slots or Slots(()), skipped)


def _render(row: Row, prompt_template: PromptTemplate) -> Rendered:
    try:
        return prompt_template.render(row.query)
    except TemplateError as error:  # of this row's text: what refuses every row was found when the template was made
        raise TemplateError(f"example {row.id}: {error}") from error


def _encode_targets(
    rows: Sequence[Row], prompt_template: PromptTemplate, append_end_token: bool
) -> dict[tuple[str, tuple[str, ...]], tuple[int, ...]]:
    """The token ids of every target, by the target and the row's choices."""
    with_end = {
        choices: append_end_token or (bool(choices) and encode_choices(choices, prompt_template).with_end)
        for choices in {row.choices for row in rows}
    }
    texts = {(row.target, with_end[row.choices]) for row in rows}
    ids = {(text, ends): (whole_turn if ends else continuation)(text, prompt_template) for text, ends in texts}
    return {(row.target, row.choices): ids[row.target, with_end[row.choices]] for row in rows}


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


def _straddling(expected: Slots, actual: Slots, example_id: str, tokenizer: Any) -> TemplateError:
    def show(slots: Slots) -> str:
        return " | ".join(str(tokenizer.convert_ids_to_tokens(list(ids))) for ids in slots.ids)

    return TemplateError(
        f"example {example_id}: the prompt's tokens are {show(actual)}, but {show(expected)} in the first example. A "
        "token straddles the edge between prompt and query, so the prompt is not the same for every example. Put a "
        "line break or a message boundary between {prompt} and {query} in the template."
    )


def _too_long(example: Example, needed: int, limit: int) -> DataError:
    return DataError(
        f"example {example.id} needs {needed} tokens ({len(example.tokens)} before the answer), but the model's "
        f"context is {limit}. Shorten the row, the prompt or task.max_new_tokens, take another model, or leave such "
        "examples out with task.too_long=skip (they are counted in the results)."
    )
