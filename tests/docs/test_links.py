"""Files that the documentation points to are there."""

from __future__ import annotations

import re

import pytest
from tests.docs.snippets import PAGES, ROOT

LINK = re.compile(r"\]\(([^)#\s]+)")
PATH = re.compile(r"`((?:conf|docs|scripts|src|tests)/[\w./-]+)`")


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_every_file_that_a_page_names_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    linked = [(ROOT / page).parent / link for link in LINK.findall(text) if "://" not in link]
    named = [ROOT / path for path in PATH.findall(text)]
    assert [str(path) for path in (*linked, *named) if not path.exists()] == []
