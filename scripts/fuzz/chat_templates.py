"""Chat templates: without a system role, trimming, dated, raising, endless, huge; and plain broken ones."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from embedgrad_cli.assets import resolve
from fuzz.case import Case
from fuzz.mutations import cut_bytes, texts

TURN = "<|im_start|>{{ ROLE }}\n{{ CONTENT }}<|im_end|>\n"
ROLES = ["m['role']", "m.role", "'user'", "m.role|upper", "m.name", "m.role if m.role != 'system' else 'user'"]
CONTENTS = [
    "m['content']", "m['content']|trim", "m.content|upper", "m.content[:5]", "m.content|e", "m.content + m.content",
    "m.content|tojson", "m.content.strip()", "m.content|reverse", "m", "m.content.split('?')[0]", "m.content|length",
]  # fmt: skip
HEADS = [
    "", "", "{{ bos_token }}", "{{ strftime_now('%d %b %Y') }}", "{{ strftime_now(1) }}", "{{ now() }}", "{{ tools }}",
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}",
    "{% if messages[0].role != 'system' %}{{ raise_exception('a system turn first') }}{% endif %}",
    "{% if messages[-1].role == 'assistant' %}{{ 1 / 0 }}{% endif %}",
    "{% set messages = messages[1:] %}", "{% set messages = messages + messages %}", "{% set messages = [] %}",
    "{{ messages[5].content }}", "{{ 1 / 0 }}", "{{ x.y.z }}", "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.clear() }}", "{{ messages.append(1) }}", "{% import 'os' as o %}", "{% include '/etc/passwd' %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "{{ 9**9**9 }}",
    "{{ 'x' * 10000000000 }}", "{{ range(10**9)|list }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "\ufeff", "\x00", "\x1b[2J", "{{ '\\ud83d' }}", "{{ '\\x00' }}", "{% raw %}", "{# ", "{{ lipsum() }}",
    "{% generation %}",
    "{% set ns = namespace(f=false) %}", "{{ messages|map(attribute='content')|join('') }}", "{{ raise_exception(1) }}",
]  # fmt: skip
TAILS = [
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n", "", "{% endif %}",
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}", "{{ ' ' * 3 }}",
    "\ue010",
    "{% if not add_generation_prompt %}{{ messages[-1].content }}{% endif %}", "<|im_end|>", "\ue000prompt\ue001",
]  # fmt: skip
PLACEMENTS = ["system", "before-query", "after-query"]
MODEL = ("config.json", "tokenizer.json", "tokenizer_config.json")


def cases() -> SearchStrategy[Case]:
    """Templates beside the embedded model's tokenizer; the task is shown, which loads no weights."""
    folder = Path(resolve("embedded:tiny"))
    files = {name: (folder / name).read_bytes() for name in MODEL}
    config = json.loads(files["tokenizer_config.json"])
    config.pop("chat_template", None)
    files["tokenizer_config.json"] = json.dumps(config).encode()

    def case(template: bytes, placement: str) -> Case:
        words = (
            "tasks",
            "show",
            "word-problems",
            "model=local",
            "model.path='{folder}/model'",
            f"template={placement}",
        )
        there = {f"model/{name}": content for name, content in {**files, "chat_template.jinja": template}.items()}
        return Case(there, words, names=("chat template", "model.path", "template"))

    return st.builds(case, _templates() | _templates() | _cut(), st.sampled_from(PLACEMENTS))


@st.composite
def _templates(draw: DrawFn) -> bytes:
    turn = TURN.replace("ROLE", draw(st.sampled_from(ROLES))).replace("CONTENT", draw(st.sampled_from(CONTENTS)))
    loop = f"{{% for m in messages %}}{turn}{{% endfor %}}"
    parts = [draw(st.sampled_from(HEADS)), loop, draw(st.sampled_from(TAILS))]
    if draw(st.integers(0, 4)) == 0:
        parts.insert(draw(st.integers(0, 3)), draw(texts))
    return "".join(parts).encode("utf-8", "replace")


def _cut() -> SearchStrategy[bytes]:
    return cut_bytes(f"{HEADS[3]}{{% for m in messages %}}{TURN}{{% endfor %}}{TAILS[0]}".encode())
