"""Chat templates that render the same on every day and under every caller: their arguments and their clock are fixed.

What is fixed is written into the template itself, in front of it. So whatever renders with this tokenizer agrees:
training, scoring, generation, digests, and an exported folder. The model's own template follows to the letter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

from embedgrad_cli.errors import ModelError

Templates = str | dict[str, str]  # some models have several, by name

CLOCK = "strftime_now"  # the one way to the clock that transformers gives a template
HEAD = re.compile(
    r"\{#- Fixed by embedgrad(?:, as on ([\d-]+))?\. -#\}.*?\{#- The model's own template: -#\}", re.DOTALL
)
DIRECTIVES = "aAbBdmyYjUwWuVGxcDFehHIMSpfXTRrZz"  # of strftime


def pin(templates: Templates, arguments: Mapping[str, Any] | None, day: date) -> Templates:
    """Templates with these arguments, and with `day`, at midnight, for their clock if they read it.

    They take the place of what was fixed before.

    Raises:
        ModelError: they do not read one of the arguments.
    """
    arguments = arguments or {}
    whole = "".join(templates.values()) if isinstance(templates, dict) else templates
    unread = [name for name in arguments if not re.search(rf"\b{re.escape(name)}\b", whole)]
    if unread:
        raise ModelError(
            f"model.chat_template_kwargs.{unread[0]}: the model's chat template reads nothing of this name, so it "
            "would change nothing. Give a name that stands in the template (chat_template.jinja, or the key "
            "chat_template in tokenizer_config.json), or leave it out."
        )
    return each(original_of(templates), lambda template: _head(template, arguments, day) + template)


def original_of(templates: Templates) -> Templates:
    """The model's own templates, whether something was fixed in front of them or not."""
    return templates and each(templates, lambda template: HEAD.sub("", template, count=1))


def pinned_day(templates: Templates | None) -> str | None:
    """The day that a template's clock shows, as `YYYY-MM-DD`; None where it reads none, or the real one."""
    every = templates.values() if isinstance(templates, dict) else [templates or ""]
    found = [match[1] for match in map(HEAD.match, every) if match and match[1]]
    return found[0] if found else None


def each(templates: Templates, change: Callable[[str], str]) -> Templates:
    return {k: change(v) for k, v in templates.items()} if isinstance(templates, dict) else change(templates)


def _head(template: str, arguments: Mapping[str, Any], day: date) -> str:
    lines = [f"{{%- set {name} = {_literal(value)} -%}}" for name, value in arguments.items()]
    reads_clock = CLOCK in template
    if reads_clock:
        read = "".join([template, *lines])
        words = {a: b for a, b in _words_of(day).items() if a in read or a[0] != "%"}
        replaced = "".join(f".replace({_literal(a)}, {_literal(b)})" for a, b in words.items())
        lines.append(f"{{%- macro {CLOCK}(format) -%}}{{{{- format{replaced} -}}}}{{%- endmacro -%}}")
    if not lines:
        return ""
    as_on = f", as on {day.isoformat()}" if reads_clock else ""
    return f"{{#- Fixed by embedgrad{as_on}. -#}}{''.join(lines)}{{#- The model's own template: -#}}"


def _words_of(day: date) -> dict[str, str]:
    """What strftime writes for each directive; "%-d" and the like are glibc's, without a zero in front."""
    words = {"%%": "\ue030"}  # set aside, or "%%d" would be taken for a directive
    for letter in DIRECTIVES:
        words[f"%{letter}"] = day.strftime(f"%{letter}")
    for letter in "dmyjeHIMSUWw":
        words[f"%-{letter}"] = day.strftime(f"%{letter}").strip().lstrip("0") or "0"
    return {**words, "\ue030": "%"}


def _literal(value: Any) -> str:
    """A Jinja expression. Texts and numbers are JSON's, which has other words for None and for nothing else."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_literal(str(key))}: {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
