"""docs/commands.md names every extra that a user may install."""

from __future__ import annotations

import re
import tomllib

from tests.docs.snippets import ROOT

OURS = {"bench", "dev", "docs", "report-tests"}  # for those who change embedgrad


def test_every_extra_is_named() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    text = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    sentence = text.partition("What needs more packages has an extra")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([\w-]+)`", sentence)) == set(extras) - OURS
