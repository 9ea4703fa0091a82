"""The tables of the reference, written from the schema, the YAML files and the docstrings when the site is built.

A page has `<!-- settings -->`, `<!-- choices -->`, `<!-- records CLASS … -->` or `<!-- interface -->` on a line of its
own. What stands between `<!-- repository -->` and `<!-- /repository -->` is for readers who have no such tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from docs_site.interface import interface
from docs_site.records import records
from docs_site.settings import choices, settings_tables

MARKER = re.compile(r"^<!-- (settings|choices|records|interface)((?: \w+)*) -->$", re.MULTILINE)
ONLY_IN_THE_REPOSITORY = re.compile(r"<!-- repository -->\n.*?<!-- /repository -->\n+", re.DOTALL)
TABLES: dict[str, Callable[..., str]] = {
    "settings": settings_tables,
    "choices": choices,
    "records": records,
    "interface": interface,
}


def filled(markdown: str) -> str:
    """A page's Markdown with a table in the place of each marker."""
    whole = ONLY_IN_THE_REPOSITORY.sub("", markdown)
    return MARKER.sub(lambda match: TABLES[match[1]](*match[2].split()), whole)
