"""A conversation of any length, with the prompt in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from embedgrad_cli.config.fields import PLACE, QUERY, QUERY_PLACE, SLOT, prompt_number
from embedgrad_cli.config.schema import Message, TemplateConfig
from embedgrad_cli.core.model.chat_rendering import Refused, apply_template
from embedgrad_cli.core.text.template import PromptTemplate, Rendered
from embedgrad_cli.errors import TemplateError

Turns = Sequence[Mapping[str, str]]
PRIVATE_USE = range(0xE000, 0xF900)


def render_turns(
    turns: Turns, template: TemplateConfig, seeds: Sequence[str], tokenizer: Any, is_chat: bool
) -> Rendered:
    """Render a conversation around the prompt's template, up to where the model's answer begins.

    The last turn is the query. What the template has before its query stands in front of the whole conversation; the
    turns before the last stand between that and the query. So one user turn is rendered as in training, and a longer
    conversation keeps its prompt where it was learnt: beside the query, or at the very beginning. A system turn of the
    conversation's own follows the same rule as in `exports.chat_template`: it stands first or, if the template begins
    with one too, is joined to that one after an empty line.

    Raises:
        TemplateError: the turns are not a conversation or do not end with the query's role, or the tokenizer's chat
            template refuses or rewrites them.
    """
    _check(turns)
    if not is_chat:
        return _plain(turns, template, list(seeds), tokenizer)

    def render(value: Callable[[str], str]) -> str:
        return _render_chat(turns, template, value, tokenizer)

    # The slots are found by a character that nobody else uses, put around the seed in a second rendering.
    contents = "".join([*seeds, *(turn["content"] for turn in turns)])
    mark = next(chr(code) for code in PRIVATE_USE if chr(code) not in contents)
    query = turns[-1]["content"]
    text = render(lambda name: query if name == QUERY else _seed(name, seeds))
    marked = render(lambda name: query if name == QUERY else f"{mark}{_seed(name, seeds)}{mark}")
    slots = _slots(marked.split(mark), text, template)
    # An answer begins as in training: behind what the template writes there, with its trailing blank in front.
    prompt_template = PromptTemplate(template, list(seeds), tokenizer, is_chat)
    text += prompt_template.prefix
    end = len(text.removesuffix(prompt_template.blank))
    return Rendered(text[:end], [(begin, min(stop, end)) for begin, stop in slots])


def _render_chat(turns: Turns, template: TemplateConfig, value: Callable[[str], str], tokenizer: Any) -> str:
    """The turns around the template's messages, with `value(name)` in place of each field, by the chat template."""
    filled = [Message(m.role, PLACE.sub(lambda field: value(field[1]), m.content)) for m in template.messages]
    messages = _insert_turns(turns, filled, _query_at(template))
    try:
        return apply_template(tokenizer, messages, add_generation_prompt=True)
    except Refused as error:
        roles = ", ".join(m["role"] for m in messages)
        raise TemplateError(
            f"the model's chat template refuses messages with the roles {roles}: {error}. Turns of user and "
            "assistant usually have to alternate."
        ) from error


def _slots(pieces: Sequence[str], text: str, template: TemplateConfig) -> list[tuple[int, int]]:
    """The character ranges of the prompt in a text.

    Args: pieces: the text, cut before and after each prompt.
    """
    if "".join(pieces) != text:
        raise TemplateError(
            "the model's chat template rewrites the prompt where it stands in this conversation, so its place in the "
            "text cannot be told. Optimise a prompt without white space at its edges, or with another template."
        )
    num_slots = sum(len(SLOT.findall(message.content)) for message in template.messages)
    if len(pieces) != 2 * num_slots + 1:
        raise TemplateError(
            f"the model's chat template writes {len(pieces) // 2} of the prompt's {num_slots} place(s) in this "
            "conversation. Leave out its system turn, or optimise a prompt in the user's turn (template=before-query "
            "or template=after-query)."
        )
    ends = list(accumulate(map(len, pieces)))
    return [(ends[i - 1], ends[i]) for i in range(1, len(pieces), 2)]


def _check(turns: Turns) -> None:
    for number, turn in enumerate(turns):
        if not isinstance(turn, Mapping) or not all(isinstance(turn.get(key), str) for key in ("role", "content")):
            raise TemplateError(
                f"messages[{number}] is {turn!r}, but a message is a dict with the texts 'role' and 'content', such as "
                "{'role': 'user', 'content': 'How many?'}."
            )
    if not turns:
        raise TemplateError("messages is empty: a conversation has at least the turn that asks.")


def _plain(turns: Turns, template: TemplateConfig, seeds: list[str], tokenizer: Any) -> Rendered:
    if len(turns) > 1:
        raise TemplateError(
            f"the conversation has {len(turns)} turns, but this prompt stands in a plain text, which has a place for "
            "one query. Give one user turn."
        )
    return PromptTemplate(template, seeds, tokenizer, is_chat=False).render(turns[0]["content"])


def joins_system_turn(turns: Turns, template: TemplateConfig) -> bool:
    """Whether a system turn of the conversation's own becomes part of the template's."""
    first = template.messages[0]
    return len(turns) > 1 and turns[0]["role"] == first.role == "system" and _query_at(template) > 0


def _query_at(template: TemplateConfig) -> int:
    return next(i for i, message in enumerate(template.messages) if QUERY_PLACE in message.content)


def _insert_turns(turns: Turns, filled: Sequence[Message], query_at: int) -> list[dict[str, str]]:
    """The turns between the template's messages, whose fields are filled already."""
    if turns[-1]["role"] != filled[query_at].role:
        raise TemplateError(
            f"the last turn has the role {turns[-1]['role']!r}, but the prompt was optimised for queries of the role "
            f"{filled[query_at].role!r}. End the conversation with the turn that the model shall answer."
        )
    messages = [{"role": message.role, "content": message.content} for message in filled]
    history = [{"role": turn["role"], "content": turn["content"]} for turn in turns[:-1]]
    before, after = messages[:query_at], messages[query_at:]
    if history and history[0]["role"] == "system":
        system = history.pop(0)
        if before and before[0]["role"] == "system":
            before[0]["content"] += f"\n\n{system['content']}"
        else:
            before.insert(0, system)
    return [*before, *history, *after]


def _seed(name: str, seeds: Sequence[str]) -> str:
    return seeds[prompt_number(name)]
