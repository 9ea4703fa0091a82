"""A built site that loads from elsewhere, or leads nowhere, is found out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from check_site import main, problems


def site(folder: Path, body: str) -> Path:
    (folder / "deeper").mkdir()
    (folder / "style.css").write_text("a {color: red}")
    (folder / "index.html").write_text(f'<link rel="stylesheet" href="style.css"><h1 id="top">Top</h1>{body}')
    (folder / "deeper/page.html").write_text(
        '<a href="../index.html#top">up</a> <a href="https://elsewhere.org">out</a>'
    )
    return folder


def test_what_is_whole_has_no_problem(tmp_path: Path) -> None:
    assert list(problems(site(tmp_path, '<a href="deeper/page.html">down</a> <a href="#top">up</a>'))) == []
    assert main([str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ('<script src="https://elsewhere.org/a.js"></script>', "loads https://elsewhere.org/a.js"),
        ('<img src="//elsewhere.org/a.png">', "loads //elsewhere.org/a.png"),
        ('<img src="gone.png">', "gone.png, which is not there"),
        ('<a href="deeper/gone.html">x</a>', "deeper/gone.html, which is not there"),
        ('<a href="deeper/page.html#gone">x</a>', "no such anchor"),
    ],
)
def test_what_is_broken_is_named(body: str, word: str, tmp_path: Path) -> None:
    (found,) = problems(site(tmp_path, body))
    assert word in found
    assert main([str(tmp_path)]) == 1


def test_a_style_that_loads_from_elsewhere(tmp_path: Path) -> None:
    (site(tmp_path, "") / "style.css").write_text("@import url(https://fonts.elsewhere.org/a.css);")
    (found,) = problems(tmp_path)
    assert "style.css" in found
