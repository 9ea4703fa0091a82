"""Files of the repository that stand outside of docs/, as pages of the site.

A link in a page is written for whoever reads the repository: `../src/embedgrad_cli/prompt.py` from docs/. In the site
it leads to a page that holds that file's text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# Markdown files outside of docs/ that are pages of their own, and those pages.
NAMED = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
# A fenced block, or the target of a link.
LINK = re.compile(r"(?P<code>^```.*?^```$)|\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)", re.MULTILINE | re.DOTALL)
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".json": "json", ".jsonl": "json"}


class Outside:
    """The pages of one repository.

    Args:
        root: its folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[str, str] = {}  # of the repository, by the page about each

    def pages(self) -> dict[str, str]:
        """Markdown by path below docs/, for every file outside of it that a page links to, also by way of others.

        Raises:
            FileNotFoundError: a link leads nowhere.
        """
        waiting = [*NAMED, *(f"docs/{path.name}" for path in sorted((self.root / "docs").glob("*.md")))]
        seen, found = set(waiting), dict[str, str]()
        while waiting:
            file = waiting.pop()
            text = self.text(file)
            if not file.startswith("docs/"):
                self.files[page_of(file)] = file
                found[page_of(file)] = text
            if file.endswith(".md") or (self.root / file).is_dir():
                new = {target for target in self._targets(file, text) if is_text_page(target)} - seen
                seen |= new
                waiting += sorted(new)
        return found

    def text(self, file: str) -> str:
        """What a page about a file says: a Markdown file itself, the names in a folder, or the text as code."""
        path = self.root / file
        if path.is_dir():
            names = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith(("_", ".")))
            return f"# {file}/\n\n" + "".join(f"- [{name}]({name})\n" for name in names)
        text = path.read_text(encoding="utf-8")
        if file.endswith(".md"):
            return text
        language = LANGUAGES.get(path.suffix, "text")
        fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
        return f"---\nsearch:\n  exclude: true\n---\n# {file}\n\n{fence}{language}\n{text.rstrip()}\n{fence}\n"

    def relinked(self, markdown: str, page: str) -> str:
        """A page's Markdown with links that lead from page to page, below docs/.

        Args:
            page: its path below docs/.
        """
        file = self.files.get(page, f"docs/{page}")

        def replace(match: re.Match[str]) -> str:
            target = match["target"]
            if match["code"] or not _is_local(target):
                return match[0]
            place = _resolved(file, target, self.root)
            to = page_of(place) if is_text_page(place) else place.removeprefix("docs/")
            return f"]({os.path.relpath(to, PurePosixPath(page).parent)}{match['anchor'] or ''})"

        return LINK.sub(replace, markdown)

    def _targets(self, file: str, text: str) -> Iterator[str]:
        for match in LINK.finditer(text):
            if not match["code"] and _is_local(match["target"]):
                yield _resolved(file, match["target"], self.root)


def page_of(file: str) -> str:
    """The path below docs/ of the page about a file of the repository."""
    if file.startswith("docs/"):
        return file.removeprefix("docs/")
    return NAMED.get(file) or f"source/{file.removesuffix('.md')}.md"


def is_text_page(file: str) -> bool:
    """Whether a file is shown as a page; pictures in docs/ are themselves."""
    return file.endswith(".md") or not file.startswith("docs/")


def _is_local(target: str) -> bool:
    return "://" not in target and not target.startswith(("#", "mailto:"))


def _resolved(file: str, target: str, root: Path) -> str:
    """The file that a link in another means, from the repository's root; from a folder's page, a file in the folder."""
    folder = PurePosixPath(file) if (root / file).is_dir() else PurePosixPath(file).parent
    return os.path.normpath(folder / target)
