"""Write the pages of the documentation's site, for mkdocs to build: `make docs`.

    python scripts/docs_pages.py build/docs

They are those of docs/ with the tables of the reference in their places, README.md as index.md, and the text of every
file of the repository that a page links to; links lead from page to page. What is in the folder already is removed.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from docs_site.outside import Outside
from docs_site.reference import filled

ROOT = Path(__file__).parents[1]
ALONE = ("index.md", "tutorial.md")  # in their part of the navigation, so that there is nothing to show beside them


def pages(root: Path = ROOT) -> dict[str, str]:
    """Markdown by path in the site.

    Raises:
        FileNotFoundError: a link leads to no file.
    """
    outside = Outside(root)
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted((root / "docs").glob("*.md"))}
    made = {page: outside.relinked(filled(text), page) for page, text in (texts | outside.pages()).items()}
    return made | {page: f"---\nhide: [navigation]\n---\n{made[page]}" for page in ALONE}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the pages")
    out = parser.parse_args(argv).out
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(ROOT / "docs", out, ignore=shutil.ignore_patterns("*.md"))
    for page, text in pages().items():
        (out / page).parent.mkdir(parents=True, exist_ok=True)
        (out / page).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
