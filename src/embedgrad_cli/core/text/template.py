"""From a template and a query to one text with the prompt's place marked in it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from embedgrad_cli.config.fields import PLACE, QUERY, SLOT_AND_SPACE, prompt_number
from embedgrad_cli.config.schema import TemplateConfig
from embedgrad_cli.core.model.tokenizer import TurnEnd, find_turn_end
from embedgrad_cli.core.text.messages import fill, messages_of
from embedgrad_cli.core.text.rendering_check import (
    MARKED,
    answer_prefix,
    check_places,
    marker,
    render_chat,
    rewritten,
)
from embedgrad_cli.errors import TemplateError

TRAILING_BLANK = re.compile(r"[^\S\r\n]+\Z")  # white space at the end of a text that breaks no line


@dataclass(frozen=True)
class Rendered:
    """One conversation up to where the model's answer begins; `slots` and `queries` are character ranges of `text`."""

    text: str
    slots: list[tuple[int, int]]
    queries: list[tuple[int, int]] = field(default_factory=list)


class PromptTemplate:
    """A template with the seed prompt in its slots, which renders queries into conversations.

    The template is rendered once, with markers for prompt and query, and cut into pieces: literal text, slots, query.
    A rendering joins the pieces. Each is compared with what the tokenizer's own template makes of the real texts, so a
    chat template that rewrites its input (trims it, say) is found rather than silently deviated from.

    What the chat template writes between its generation prompt and an answer (`prefix`: a blank, empty thoughts, a
    channel) ends every rendering. So an answer is trained, scored and generated where the template has answers.

    A blank at the end of the template ("Answer: ") belongs to the answer, as in lm-evaluation-harness: tokenizers join
    it to the word that follows, so that a model has hardly ever seen a word after a lone one. Renderings end before it,
    `blank` holds it, and `answer_tokens.continuation` puts it in front of an answer.

    Args:
        template: the messages (chat) or the text (plain).
        seeds: the seed prompts; `{prompt}` is the first. None is the arm `none`: the template without any prompt.
        tokenizer: its chat template is used if `is_chat`.

    Raises:
        TemplateError: a slot or the query is missing, or the chat template refuses or rewrites the messages.
    """

    def __init__(self, template: TemplateConfig, seeds: list[str] | None, tokenizer: Any, is_chat: bool) -> None:
        self.template, self.seeds, self.tokenizer, self.is_chat = template, seeds, tokenizer, is_chat
        self._check_fields([m.content for m in template.messages] if is_chat else [template.text])
        self.prefix = ""
        rendered = self._fill(marker)
        if is_chat:
            messages = self._messages(marker)
            check_places(messages, rendered, tokenizer)
            self.prefix = answer_prefix(messages, rendered, tokenizer)
        self._pieces, self.blank = _without_blank(self._cut(rendered + self.prefix))

    @property
    def adds_special_tokens(self) -> bool:
        """Whether the tokenizer still has to add its own begin of text (a chat template writes it itself)."""
        return not self.is_chat

    @cached_property
    def turn_end(self) -> TurnEnd:
        """What follows an answer, up to the token that ends the model's turn."""
        return find_turn_end(self.tokenizer, self.is_chat)

    @property
    def tail(self) -> str:
        """The literal text between the last query or slot and the answer, or the blank in front of that."""
        last = self._pieces[-1]
        return last[1] if last[0] == "text" else ""

    def render(self, query: str) -> Rendered:
        """Render one query. Raises `TemplateError` if the chat template would have given another text."""
        text = ""
        ranges: dict[str, list[tuple[int, int]]] = {"text": [], "slot": [], QUERY: []}
        for kind, content in self._pieces:
            added = query if kind == QUERY else content
            ranges[kind].append((len(text), len(text) + len(added)))
            text += added
        if self.is_chat:
            self._verify(text, query)
        return Rendered(text, ranges["slot"], ranges[QUERY])

    @property
    def roles(self) -> list[str]:
        """The roles of the messages that the chat template is given."""
        return [message["role"] for message in self._messages(marker)]

    def _messages(self, value: Any) -> list[dict[str, str]]:
        return messages_of(self.template, value, has_prompt=self.seeds is not None)

    def _fill(self, value: Any) -> str:
        """The template with `value(name)` in place of each field, through the chat template if there is one.

        Up to where the answer begins.
        """
        if not self.is_chat:
            text = self.template.text if self.seeds is not None else SLOT_AND_SPACE.sub("", self.template.text)
            return fill(text, value)
        return render_chat(self._messages(value), self.tokenizer) + self.prefix

    def _cut(self, rendered: str) -> list[tuple[str, str]]:
        """Split a rendering with markers into `(kind, content)`: literal text, slots with their seed, the query."""
        pieces: list[tuple[str, str]] = []
        for index, part in enumerate(MARKED.split(rendered)):
            if index % 2 == 0:
                pieces.append(("text", part))
            elif part == QUERY:
                pieces.append((QUERY, ""))
            else:
                pieces.append(("slot", self._seed(part)))
        return [piece for piece in pieces if piece != ("text", "")]

    def _seed(self, name: str) -> str:
        number = prompt_number(name)
        seeds = self.seeds or []
        if number >= len(seeds):
            raise TemplateError(
                f"the template asks for {{prompt.{number}}}, but prompt.text holds {len(seeds)} text(s); "
                "count from 0, and give prompt.text as a list with one text per number."
            )
        return seeds[number]

    def _check_fields(self, contents: list[str]) -> None:
        names = [name for content in contents for name in PLACE.findall(content)]
        where = "template.messages" if self.is_chat else "template.text"
        missing = [f"{{{kind}}}" for kind in ("prompt", QUERY) if not any(n.startswith(kind) for n in names)]
        if missing:
            raise TemplateError(
                f"{where} has no place for {' and '.join(missing)}: it reads {contents}. "
                "Write {prompt} where the seed prompt stands and {query} where each example's input stands."
            )
        if self.seeds is not None and any(not seed.strip() for seed in self.seeds):
            raise TemplateError("prompt.text is empty: the seed prompt needs at least one word to start from.")

    def _verify(self, text: str, query: str) -> None:
        expected = self._fill(lambda name: query if name == QUERY else self._seed(name))
        text += self.blank
        if text != expected:
            raise rewritten(text, expected, self.tokenizer, self.seeds or [], query)


def _without_blank(pieces: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], str]:
    """The pieces up to a trailing blank, and that blank. A query is never cut."""
    pieces, blank = list(pieces), ""
    while pieces and pieces[-1][0] != QUERY:
        kind, content = pieces.pop()
        kept = TRAILING_BLANK.sub("", content)
        blank = content[len(kept) :] + blank
        if kept:
            pieces.append((kind, kept))
            break
    return pieces, blank
