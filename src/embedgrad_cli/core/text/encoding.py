"""From data rows to examples: every row rendered, tokenised, and checked for what a prompt and a model need.

`encode` is the way in. What comes out is made of `marked_tokens` (the conversation) and `answer_tokens` (the target).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.text.answer_tokens import continuation, encode_choices, whole_turn
from embedgrad_cli.core.text.marked_tokens import Example, Slots, tokenise
from embedgrad_cli.core.text.template import PromptTemplate, Rendered
from embedgrad_cli.errors import DataError, TemplateError
from embedgrad_cli.storage.interrupts import stop_if_asked

log = logging.getLogger(__name__)

TOKENIZER_BATCH = 1_000


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


@dataclass(frozen=True)
class Encoded:
    """The rows that fit, what stands in their slots, and the ids of those that were left out."""

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
