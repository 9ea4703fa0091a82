"""What `docs/results.md` says of one model and task: a line of its overview, and a section.

The page is the only thing that outlives a work folder, so what it says is read again when it is written anew, and what
no finished cell replaces stays as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from embedgrad_cli.errors import UserError

REAL_TASKS = ("sst2", "causal-judgement", "gsm8k", "math")
OVERVIEW = "Overview"


@dataclass(frozen=True)
class Entry:
    """`line`: its cells in the overview behind model and task. `text`: its section, without the heading."""

    model: str
    task: str
    line: list[str]
    text: str

    @property
    def section(self) -> str:
        return f"## {self.model}, {self.task}\n\n{self.text}"


def entries_of(page: str) -> list[Entry]:
    """The entries of a page as it stands. Raises `UserError` if it is not one that `results_page.py` wrote."""
    _, *parts = re.split(r"(?m)^## ", page)
    sections = [part.partition("\n\n")[::2] for part in parts]
    lines = [
        row.strip("| ").split(" | ")
        for heading, text in sections
        for row in text.splitlines()
        if heading == OVERVIEW and row.startswith("| ")
    ]
    entries = []
    for heading, text in sections:
        if heading != OVERVIEW:
            model, _, task = heading.rpartition(", ")
            line = next((line for line in lines if line[:2] == [model, task]), None)
            if line is None:
                raise UserError(f'the page has a section "{heading}" that its overview has no line for.')
            lines.remove(line)  # two sections may have one heading
            entries.append(Entry(model, task, line[2:], text))
    return entries


def merged(entries: Sequence[Entry], earlier: Sequence[Entry]) -> list[Entry]:
    """Those of an earlier page with these in their places; models as that page orders them, tasks by `REAL_TASKS`."""
    new = {(entry.model, entry.task) for entry in entries}
    every = [*(entry for entry in earlier if (entry.model, entry.task) not in new), *entries]
    models = list(dict.fromkeys(entry.model for entry in [*earlier, *entries]))
    return sorted(every, key=lambda entry: (models.index(entry.model), place(entry.task)))


def place(task: str) -> int:
    return REAL_TASKS.index(task) if task in REAL_TASKS else len(REAL_TASKS)
