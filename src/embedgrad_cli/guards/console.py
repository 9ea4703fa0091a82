"""Rich's console, for text that nobody here has written."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import rich.console
from rich.segment import Segment
from rich.table import Table

from embedgrad_cli.guards.visible_text import visible

UNBOUNDED = 100_000  # columns, in which a table is as wide as it wants to be


class Console(rich.console.Console):
    """Shows control characters in what it prints, instead of obeying them; its own colours and bars stay.

    Rich takes a few of them out of its texts, the escape character not among them.
    """

    def render(self, *args: Any, **kwargs: Any) -> Iterable[Segment]:
        for segment in super().render(*args, **kwargs):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


def for_results(columns: int = UNBOUNDED) -> Console:
    """That of stdout. Where it is no terminal it has at least so many columns: nothing is squeezed into a file's 80."""
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, columns)
    return console


def fits(console: Console, table: Table) -> bool:
    """Whether a console has room for a table as wide as it wants to be, so that no cell is broken into pieces."""
    unbounded = console.options.update(width=UNBOUNDED)
    return console.measure(table, options=unbounded).maximum <= console.width
