"""Other text in the slots of a template: added tokens, or a mark at which a rendering is cut.

A slot's tokens may cover a few characters beside the seed: in "Think it through.\\n{query}" many tokenizers have one
token for ".\\n". Where other text takes the slot's place, those characters must go from the text beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from embedgrad_cli.config.fields import PLACE, QUERY
from embedgrad_cli.config.schema import Message
from embedgrad_cli.exports.artifact_source import Source

Piece = str | None  # literal text; None is the query
Edges = list[tuple[int, int]]  # per slot: characters before and after the seed that its tokens cover


@dataclass(frozen=True)
class Turn:
    """A message of the template with its slots filled."""

    role: str
    pieces: tuple[Piece, ...]

    def content(self, query: str) -> str:
        return "".join(query if piece is None else piece for piece in self.pieces)


def fill_slots(source: Source, texts: Sequence[str], edges: Edges) -> list[Turn] | None:
    """The template with these texts in its slots, or None if the characters at an edge are not the template's own.

    A plain-text template comes back as one turn of the user.
    """
    template = source.prompt_template.template
    messages = template.messages if source.model.is_chat else [Message("user", template.text)]
    turns, slot = [], 0
    for message in messages:
        pieces: list[Piece] = []
        cut = 0  # characters to leave out at the next literal's beginning
        for index, part in enumerate(PLACE.split(message.content)):
            if index % 2 == 0:
                if len(part) < cut:
                    return None
                pieces.append(part[cut:])
                cut = 0
            elif part == QUERY:
                pieces.append(None)
            else:
                before, after = edges[slot]
                literal = pieces.pop() or ""  # PLACE.split has a literal, if an empty one, before every field
                if len(literal) < before:
                    return None
                pieces += [literal[: len(literal) - before] + texts[slot]]
                slot, cut = slot + 1, after
        turns.append(Turn(message.role, _joined(pieces)))
    return turns


def find_edges(source: Source, is_exact: Callable[[Edges], bool]) -> Edges | None:
    """The characters that the slots' tokens cover beside the seed, such that a filled template is exact."""
    return next((edges for edges in _candidates(source) if is_exact(edges)), None)


def _candidates(source: Source) -> Iterator[Edges]:
    """By the tokens' offsets; by their text, for tokenizers whose offsets leave white space out; none at all."""
    query, example = source.probes[0]
    tokenizer = source.model.tokenizer
    rendered = source.prompt_template.render(query)
    offsets = tokenizer(
        rendered.text, add_special_tokens=source.prompt_template.adds_special_tokens, return_offsets_mapping=True
    )["offset_mapping"]
    by_offset, by_text, row = [], [], 0
    for (begin, end), ids in zip(rendered.slots, source.artifact.prompt.slots.ids, strict=True):
        places = [example.tokens.index(-1 - i) for i in range(row, row + len(ids))]
        by_offset.append((max(0, begin - offsets[places[0]][0]), max(0, offsets[places[-1]][1] - end)))
        seed, text = rendered.text[begin:end], tokenizer.decode(list(ids))
        at = max(0, text.find(seed))
        by_text.append((at, max(0, len(text) - at - len(seed))))
        row += len(ids)
    yield by_offset
    yield by_text
    yield [(0, 0)] * len(by_offset)


def _joined(pieces: list[Piece]) -> tuple[Piece, ...]:
    """Neighbouring literals as one, empty ones left out."""
    joined: list[Piece] = []
    for piece in pieces:
        if piece is not None and joined and joined[-1] is not None:
            joined[-1] += piece
        elif piece != "":
            joined.append(piece)
    return tuple(joined)
