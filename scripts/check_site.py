"""Check the built site: no page loads anything from elsewhere, and what its links lead to is in the folder.

    python scripts/check_site.py site

mkdocs checks the links of Markdown; this reads what it built, HTML in Markdown and the theme's own parts included.
Exit code 1: something is wrong, one line each.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Tags whose address the browser asks for by itself, and of them links that it only asks for when clicked.
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
ONLY_SAID = {"canonical", "prev", "next", "alternate"}  # of <link rel>
IN_STYLE = re.compile(r"(?:url\(|@import)\s*[\"']?(https?:)?//", re.IGNORECASE)


class Page(HTMLParser):
    """What a page loads, what it links to, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded, self.linked, self.anchors = list[str](), list[str](), set[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attrs}
        self.anchors |= {known[name] for name in ("id", "name") if name in known}
        address = known.get(LOADED.get(tag, ""))
        if tag == "a" and "href" in known:
            self.linked.append(known["href"])
        elif address and not (tag == "link" and known.get("rel") in ONLY_SAID):
            self.loaded.append(address)


def problems(site: Path) -> Iterator[str]:
    """What is wrong in a built site, a sentence each."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    if not pages:
        yield f"{site} holds no page."
    for path, page in pages.items():
        for address in page.loaded:
            if urlsplit(address).netloc:
                yield f"{path} loads {address}."
        for address in (*page.loaded, *page.linked):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc or path.name == "404.html":  # which is for a server's root
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            if target.is_dir():
                target /= "index.html"
            if not target.is_file():
                yield f"{path} leads to {address}, which is not there."
            elif parts.fragment and parts.fragment != "__top" and target.suffix == ".html":
                to = next(known for known in pages if known.resolve() == target)
                if unquote(parts.fragment) not in pages[to].anchors:
                    yield f"{path} leads to {address}, and {to} has no such anchor."
    for style in sorted(site.rglob("*.css")):
        if IN_STYLE.search(style.read_text(encoding="utf-8")):
            yield f"{style} loads something from elsewhere."


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path, help="the built site")
    site = parser.parse_args(argv).site
    found = list(problems(site))
    for problem in found:
        print(problem, file=sys.stderr)
    print(f"{len(list(site.rglob('*.html')))} pages, {len(found)} problems")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
