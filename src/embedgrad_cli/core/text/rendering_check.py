"""What a chat template makes of texts: each must come back as it was given, once for each of its places.

Templates drop turns whose role they do not know, write some twice, trim, escape. Nothing of that is an error to the
tokenizer, and arms that differ in what was dropped would be the same input.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from embedgrad_cli.config.fields import PLACE
from embedgrad_cli.core.model.chat_rendering import Refused, apply_template
from embedgrad_cli.errors import TemplateError

Messages = list[dict[str, str]]

MARKED = re.compile("\ue000(.*?)\ue001")  # what `marker` writes
ANSWER = "\ue010"
# As in `conf/template/`. What stands in place of the texts may be anything.
PLACEMENTS = {
    "system": (("system", "{prompt}"), ("user", "{query}")),
    "before-query": (("user", "{prompt}\n{query}"),),
    "after-query": (("user", "{query}\n{prompt}"),),
}


def marker(name: str) -> str:
    """A stand-in for the text of a place, from Unicode's private use area, which chat templates pass through."""
    return f"\ue000{name}\ue001"


def render_chat(messages: Messages, tokenizer: Any) -> str:
    """A conversation up to where the model's answer begins, by the chat template.

    Raises:
        TemplateError: the chat template refuses it.
    """
    try:
        return apply_template(tokenizer, messages, add_generation_prompt=True)
    except Refused as error:
        raise TemplateError(
            f"the model's chat template refuses messages with the roles {_roles(messages)}: {error}. "
            f"{what_works(tokenizer)}"
        ) from error


def check_places(messages: Messages, rendered: str, tokenizer: Any) -> None:
    """Refuse a rendering of messages with markers in which not every text is, as often as it was given.

    Raises:
        TemplateError: names what is left out, repeated or changed, and what works.
    """
    fault = _fault(messages, rendered)
    if fault is None:
        return
    raise TemplateError(
        f"the model's chat template {fault}: of turns with the roles {_roles(messages)} it makes "
        f"{_shown(rendered)!r}. {what_works(tokenizer)}"
    )


def rewritten(expected: str, rendered: str, tokenizer: Any, seeds: Iterable[str], query: str) -> TemplateError:
    """What to raise where the chat template rewrites what it is given."""
    pairs = enumerate(zip(expected, rendered, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(expected), len(rendered)))
    return TemplateError(
        f"the model's chat template rewrites what it is given: {expected[at : at + 40]!r} was expected, but it "
        f"rendered {rendered[at : at + 40]!r}. Remove white space at the edges of prompt.text, of the query and of the "
        f"template's messages, or change the placement. {what_works(tokenizer, next(iter(seeds), 'x'), query)}"
    )


def what_works(tokenizer: Any, prompt: str = "x", query: str = "y") -> str:
    """A sentence that names the placements in which these texts come through the chat template as they are."""
    plain = "the plain text template (model.template=plain)"
    names = [f"template={name}" for name, turns in PLACEMENTS.items() if _keeps(tokenizer, turns, prompt, query)]
    if not names:
        return f"It does so wherever the prompt stands: use {plain}."
    return f"Use {' or '.join(names)}, which it renders as given, or {plain}."


def answer_prefix(messages: Messages, rendered: str, tokenizer: Any) -> str:
    """What the chat template writes between its generation prompt and the model's answer.

    A blank (Llama 2), empty thoughts (Qwen3), a channel (gpt-oss): found by rendering the conversation with an answer.
    Empty where the template goes on otherwise than by its own generation prompt, as those do that begin thoughts there
    and leave them out later (DeepSeek-R1), or refuses an answer.

    Args:
        rendered: the same messages up to the generation prompt.
    """
    answered = [*messages, {"role": "assistant", "content": ANSWER}]
    try:
        whole = apply_template(tokenizer, answered)
    except Refused:
        return ""
    if not whole.startswith(rendered) or whole.count(ANSWER) != 1:
        return ""
    return whole[len(rendered) : whole.index(ANSWER)]


def _fault(messages: Messages, rendered: str) -> str | None:
    """What a rendering of messages with markers does to them; None if all is there, once per place and as given."""
    given, found = (Counter(MARKED.findall(text)) for text in ("".join(m["content"] for m in messages), rendered))
    lost, more = given - found, found - given
    if lost or more:
        return f"{'leaves out' if lost else 'repeats'} {' and '.join(f'{{{name}}}' for name in lost or more)}"
    for message in messages:
        if message["content"].strip() not in rendered:
            return f"leaves out or changes the turn {_shown(message['content'])!r} of the {message['role']}"
    return None


def _keeps(tokenizer: Any, turns: Iterable[tuple[str, str]], prompt: str, query: str) -> bool:
    texts = {"prompt": prompt, "query": query}
    marked = [{"role": role, "content": PLACE.sub(lambda match: marker(match[1]), text)} for role, text in turns]
    filled = [{**m, "content": MARKED.sub(lambda match: texts[match[1]], m["content"])} for m in marked]
    try:
        with_marks, with_texts = (
            apply_template(tokenizer, messages, add_generation_prompt=True) for messages in (marked, filled)
        )
    except Refused:
        return False
    return _fault(marked, with_marks) is None and MARKED.sub(lambda match: texts[match[1]], with_marks) == with_texts


def _roles(messages: Messages) -> str:
    return ", ".join(message["role"] for message in messages)


def _shown(text: str) -> str:
    return MARKED.sub(lambda match: f"{{{match[1]}}}", text)
