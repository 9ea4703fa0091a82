"""Chat templates that write the prompt into an ordinary conversation.

The model's own template stays as it is, to the letter. What is put in front of it rewrites `messages`:

- the turns that the prompt's template has before its query open the conversation;
- the last turn of the user becomes the query's turn, with what stands around the query in it; earlier ones stay plain;
- a system turn of the conversation's own comes first or, if the prompt's template has one too, is joined to that one,
  after an empty line: models know one system turn, and the prompt keeps the place where it was learnt.

So a conversation of one user turn is rendered as in training, and every slot is there once in a longer one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from embedgrad_cli.core.model.pinned_template import Templates, each
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.exports.slot_text import Turn

REWRITE = """\
{#- Written by embedgrad: puts the optimised prompt into the conversation. The model's own template follows. -#}
{%- set embedgrad = namespace(turns=HEAD, asks=-1) -%}
{%- for message in messages -%}
  {%- if message.role == 'user' -%}{%- set embedgrad.asks = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
  {%- if loop.first and message.role == 'system' -%}
    {%- set embedgrad.turns = OWN_SYSTEM -%}
  {%- elif loop.index0 == embedgrad.asks -%}
    {%- set embedgrad.turns = embedgrad.turns + BODY -%}
  {%- else -%}
    {%- set embedgrad.turns = embedgrad.turns + [message] -%}
  {%- endif -%}
{%- endfor -%}
{%- set messages = embedgrad.turns -%}
{{- '' }}"""

# Rendered by the template in front, then cut at the mark: what stands before it is in the virtual tokens.
AFTER_MARK = """{%- set embedgrad_rendered -%}
{{- '' }}ORIGINAL{{ '' -}}
{%- endset -%}
{%- if embedgrad_rendered.split(MARK)[0] != BEFORE -%}
  {{- raise_exception('this prompt stands at the very beginning of a conversation: \
leave out the turns in front of it') -}}
{%- endif -%}
{{- embedgrad_rendered.split(MARK)[1] }}"""

# Rendered by the template in front; an answer begins as in training, a blank that stands in front of it is its own.
UP_TO_ANSWER = """{%- set embedgrad_whole -%}
{{- '' }}ORIGINAL{{ '' -}}
{%- endset -%}
{%- if add_generation_prompt -%}{%- set embedgrad_whole = embedgrad_whole ~ PREFIX -%}{%- endif -%}
{{- embedgrad_whole[:-LENGTH] if embedgrad_whole.endswith(BLANK) else embedgrad_whole -}}"""

# What llama.cpp's server tells every template unasked. An undefined name makes the argument undefined again; what it
# was told in training is set after this, and counts.
UNASKED = ("enable_thinking", "date_string", "datetime")
UNTOLD = "{%- set ARGUMENT = embedgrad_untold -%}"

ONE_TURN = """\
{#- Written by embedgrad: a plain text with the optimised prompt and a place for one query. -#}
{%- if messages | length != 1 or messages[0].role != 'user' -%}
  {{- raise_exception('this prompt stands in a plain text with a place for one query: give one user turn') -}}
{%- endif -%}
{%- set message = messages[0] -%}
{{- BEGIN ~ CONTENT }}"""


def carrying(original: Templates, turns: Sequence[Turn]) -> Templates:
    """The model's chat templates, each with the rewriting in front."""
    at = next(index for index, turn in enumerate(turns) if None in turn.pieces)
    head, body = turns[:at], turns[at:]
    own_system = f"[message] + {_list(head)}"
    if head and head[0].role == "system":
        joined = Turn("system", (*head[0].pieces, "\n\n", None))
        own_system = f"{_list([joined])} + {_list(head[1:])}"
    rewrite = filled(REWRITE, HEAD=_list(head), OWN_SYSTEM=own_system, BODY=_list(body))
    return each(original, lambda template: rewrite + template)


def after_mark(carrier: Templates, mark: str, before: str) -> Templates:
    """Templates that render only what follows `mark`, and refuse what has another text than `before` in front."""
    texts = {"MARK": _literal(mark), "BEFORE": _literal(before)}
    return each(carrier, lambda template: filled(AFTER_MARK, **texts, ORIGINAL=_inner(template)))


def up_to_answer(templates: Templates, prompt_template: PromptTemplate) -> Templates:
    """Templates whose renderings end where answers begin in training: behind its prefix, without its blank."""
    prefix, blank = prompt_template.prefix, prompt_template.blank
    if not prefix and not blank:
        return templates
    cut = "[:-LENGTH] if embedgrad_whole.endswith(BLANK) else embedgrad_whole"
    body = UP_TO_ANSWER if blank else UP_TO_ANSWER.replace(cut, "")
    texts = {"LENGTH": str(len(blank)), "BLANK": _literal(blank), "PREFIX": _literal(prefix)}
    return each(templates, lambda template: filled(body, **texts, ORIGINAL=_inner(template)))


def told_nothing(templates: Templates) -> Templates:
    """Templates that do not hear of thinking and of today's date, unless they were told in training.

    llama.cpp's server tells them both, and some write other conversations then (Gemma 4's, Llama 3.1's).
    """

    def front(template: str) -> str:
        return "".join(UNTOLD.replace("ARGUMENT", name) for name in UNASKED if re.search(rf"\b{name}\b", template))

    return each(templates, lambda template: front(template) + template)


def plain(begin: str, turn: Turn) -> str:
    """A chat template for a model without one: the plain text, begun by the tokenizer's own begin of text."""
    return filled(ONE_TURN, BEGIN=_literal(begin), CONTENT=_content(turn))


def filled(text: str, **parts: str) -> str:
    """The text with a part in place of each of these words. What stands in a part stays: a prompt may say BODY."""
    return re.sub(rf"\b({'|'.join(parts)})\b", lambda word: parts[word[0]], text)


def _inner(template: str) -> str:
    """A template within another: Jinja drops a line break at its very end, which is no longer the end there."""
    return template.removesuffix("\n")


def _list(turns: Sequence[Turn]) -> str:
    """Messages as a Jinja expression, in which `message.content` is the query."""
    return "[" + ", ".join(f"{{'role': {_literal(turn.role)}, 'content': {_content(turn)}}}" for turn in turns) + "]"


def _content(turn: Turn) -> str:
    """Text where the client's content is text, a list of parts where it is one."""
    if None not in turn.pieces:
        return _literal(turn.content(""))
    as_text = " ~ ".join("message.content" if p is None else _literal(p) for p in turn.pieces)
    if turn.pieces == (None,):
        return "message.content"
    parts = " + ".join(
        "message.content" if p is None else f"[{{'type': 'text', 'text': {_literal(p)}}}]" for p in turn.pieces
    )
    return f"(({as_text}) if message.content is string else ({parts}))"


def _literal(text: str) -> str:
    """A Jinja string; its escapes are JSON's. Characters beyond ASCII stay themselves."""
    return json.dumps(text, ensure_ascii=False)
