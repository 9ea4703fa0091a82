"""Rich's console, for text that nobody here has written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import rich.console
from rich.segment import Segment

from embedgrad_cli.guards.visible_text import visible


class Console(rich.console.Console):
    """Shows control characters in what it prints, instead of obeying them; its own colours and bars stay.

    Rich takes a few of them out of its texts, the escape character not among them.
    """

    def render(self, *args: Any, **kwargs: Any) -> Iterable[Segment]:
        for segment in super().render(*args, **kwargs):
            yield segment if segment.control else segment._replace(text=visible(segment.text))
