"""Docstrings in Google's style as Markdown."""

from __future__ import annotations

import re
import textwrap

SECTION = re.compile(r"^(Args|Returns|Raises):(.*)$")


def as_markdown(docstring: str) -> str:
    """Paragraphs as they are; sections become a word in bold, and their `name: words` a list."""
    blocks: list[str] = []
    for block in textwrap.dedent(docstring).strip().split("\n\n"):
        match = SECTION.match(block.splitlines()[0])
        if match is None:
            blocks.append(" ".join(block.split()))
            continue
        lines = textwrap.dedent("\n".join(block.splitlines()[1:])).splitlines()
        items = _items(lines) if not match[2].strip() else []
        said = " ".join([match[2].strip(), *(line.strip() for line in lines)]).strip()
        blocks.append(f"**{match[1]}**" + ("\n\n" + "\n".join(items) if items else f": {said}"))
    return "\n\n".join(blocks)


def _items(lines: list[str]) -> list[str]:
    """A list of what lines say; those that are indented go on with the line before. Empty if they are no list."""
    items: list[str] = []
    for line in lines:
        if line.startswith(" ") and items:
            items[-1] += f" {line.strip()}"
        elif named := re.match(r"(\w+): (.*)", line):
            items.append(f"- `{named[1]}`: {named[2]}")
        else:
            return []
    return items
