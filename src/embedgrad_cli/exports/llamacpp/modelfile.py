"""Ollama's description of a GGUF file: its name, a template of conversations, and greedy answers.

Ollama renders conversations by Go's text/template and not by the Jinja in the file. The template here is made of what
the Jinja writes between the turns of three sample conversations, and is left out where it would render another one
differently, by Python's reading of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from embedgrad_cli.core.model.chat_rendering import Refused, apply_template
from embedgrad_cli.exports.chat_template import filled
from embedgrad_cli.exports.llamacpp.tokenizer import Vocabulary

Conversation = Sequence[tuple[str, str]]  # role and content
# Contents that no template has itself; none is in another.
SYSTEM: Conversation = [("system", "EMBEDGRAD-0")]
EARLIER: Conversation = [("user", "EMBEDGRAD-1"), ("assistant", "EMBEDGRAD-2")]
LATER: Conversation = [("user", "EMBEDGRAD-3"), ("assistant", "EMBEDGRAD-4")]
ONE: Conversation = [("user", "EMBEDGRAD-5")]
MANY: Conversation = [*EARLIER, *LATER, *ONE]
PROBES: Sequence[Conversation] = [
    [("user", "How many?")],
    [("user", "How many?"), ("assistant", "Two\nor {{ three }}."), ("user", "7 + 12 =")],
    [*(("user", "Ça va ?"), ("assistant", 'Yes, "I" am.')) * 3, ("user", "x")],
]
OWN_SYSTEM = ("system", 'Be "brief".')

TEMPLATE = """\
{{- $asked := -1 }}{{- $first := true }}
{{- range $i, $_ := .Messages }}{{ if eq .Role "user" }}{{ $asked = $i }}{{ end }}{{ end }}
{{- range $i, $_ := .Messages }}
{{- if eq .Role "user" }}
{{- if and $first (eq $i $asked) }}SOLE
{{- else if $first }}OPENING
{{- else if eq $i $asked }}{{ ASKED }}
{{- else }}{{ AGAIN }}
{{- end }}{{ .Content }}
{{- if eq $i $asked }}{{ END }}{{ else }}{{ ANSWER }}{{ end }}
{{- $first = false }}
{{- else if eq .Role "assistant" }}{{ .Content }}
{{- end }}
{{- end -}}"""

ONE_TURN = """\
{{- range .Messages }}{{ if eq .Role "user" }}{{ SOLE }}{{ .Content }}{{ END }}{{ end }}{{ end -}}"""


@dataclass(frozen=True)
class Pieces:
    """What stands between the contents of a conversation.

    `sole` opens one of a single turn of the user, `opening` a longer one; `with_system` has two texts for each, around
    a system turn of the client's. `asked` and `again` stand in front of the last and any other later turn of the user,
    `answer` behind one that was answered, `end` behind the last. A template for one turn alone has no `opening`.
    """

    sole: str
    end: str
    opening: str | None = None
    answer: str = ""
    again: str = ""
    asked: str = ""
    with_system: tuple[tuple[str, str], tuple[str, str]] | None = None

    def render(self, conversation: Conversation) -> str:
        """What the template gives, for conversations of turns in turn, the last of the user."""
        system = next((content for role, content in conversation if role == "system"), None)
        turns = [turn for turn in conversation if turn[0] != "system"]
        opens = self.sole if len(turns) == 1 else self.opening or ""
        if system is not None and self.with_system:
            before, after = self.with_system[len(turns) > 1]
            opens = before + system + after
        text = opens
        for place, (role, content) in enumerate(turns):
            is_last = place == len(turns) - 1
            if role == "user" and place > 0:
                text += self.asked if is_last else self.again
            text += content
            if role == "user":
                text += self.end if is_last else self.answer
        return text

    def template(self) -> str:
        """The same for Go's text/template, as Ollama calls it."""
        if self.opening is None:
            return filled(ONE_TURN, SOLE=_literal(self.sole), END=_literal(self.end))
        openings = {"SOLE": self.sole, "OPENING": self.opening}
        texts = {"ASKED": self.asked, "AGAIN": self.again, "END": self.end, "ANSWER": self.answer}
        actions = {name: _literal(text) for name, text in texts.items()}
        for number, (name, text) in enumerate(openings.items()):
            actions[name] = f"{{{{ {_literal(text)} }}}}"
            if self.with_system:
                before, after = map(_literal, self.with_system[number])
                own = f"{{{{ {before} }}}}{{{{ $.System }}}}{{{{ {after} }}}}"
                actions[name] = f"{{{{ if $.System }}}}{own}{{{{ else }}}}{actions[name]}{{{{ end }}}}"
        return filled(TEMPLATE, **actions)


def modelfile(file: str, tokenizer: Any, vocabulary: Vocabulary, stop: Sequence[str]) -> tuple[str | None, str]:
    """Returns: the file's content, or None and why there is none."""
    begin = tokenizer.bos_token if vocabulary.adds_begin else ""  # Ollama's tokenizer writes it
    pieces = pieces_of(tokenizer, begin)
    if pieces is None:
        return None, "no Modelfile, because Go's templates cannot render conversations as this chat template does"
    ends = [vocabulary.texts[end] for end in vocabulary.ends]
    lines = [
        "# Written by embedgrad: ollama create NAME -f Modelfile. Answers are greedy, as they were measured.",
        f"FROM ./{file}",
        f'TEMPLATE """{pieces.template()}"""',
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
        *(f'PARAMETER stop """{text}"""' for text in dict.fromkeys([*ends, *stop])),
    ]
    return "\n".join(lines) + "\n", ""


def pieces_of(tokenizer: Any, begin: str = "") -> Pieces | None:
    """The texts between turns that a chat template writes; None if other conversations would differ.

    Args: begin: what every rendering begins with, and is left out.
    """

    def rendered(conversation: Conversation) -> str | None:
        messages = [{"role": role, "content": content} for role, content in conversation]
        try:
            return apply_template(tokenizer, messages, add_generation_prompt=True).removeprefix(begin)
        except Refused:  # it takes no system turn, or no second one of the user
            return None

    pieces = _cut(rendered)
    if pieces is None:
        return None
    probes = PROBES if pieces.opening is not None else PROBES[:1]
    if pieces.with_system:
        probes = [*probes, *([OWN_SYSTEM, *probe] for probe in probes)]
    return pieces if all(pieces.render(probe) == rendered(probe) for probe in probes) else None


def _cut(rendered: Any) -> Pieces | None:
    one = _between(rendered(ONE), ONE)
    if one is None:
        return None
    sole, end = one
    many = _between(rendered(MANY), MANY)
    if many is None:
        return Pieces(sole, end)
    opening, answer, again, _, asked, _ = many
    told = [_between(rendered(turns), turns) for turns in ([*SYSTEM, *ONE], [*SYSTEM, *MANY])]
    own = [(texts[0], texts[1]) for texts in told if texts is not None]
    return Pieces(sole, end, opening, answer, again, asked, (own[0], own[1]) if len(own) == 2 else None)


def _between(text: str | None, conversation: Conversation) -> list[str] | None:
    """What stands before, between and after the contents, if each is there once and in order."""
    if text is None:
        return None
    contents = [content for _, content in conversation]
    found = re.fullmatch("(.*)".join(["", *map(re.escape, contents), ""]), text, re.DOTALL)
    return list(found.groups()) if found and all(text.count(content) == 1 for content in contents) else None


def _literal(text: str) -> str:
    """A string of Go's; its escapes are JSON's."""
    return json.dumps(text, ensure_ascii=False)
