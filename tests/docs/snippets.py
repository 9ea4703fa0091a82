"""Every command and every block of Python that README.md, CONTRIBUTING.md, docs/ and the comments in conf/ show."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CARD = "src/embedgrad_cli/assets/tiny/README.md"
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md")),
    CARD,
]
CONFIGS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("conf/**/*.yaml"))
FENCE = re.compile(r"^```(.*)\n((?s:.*?))^```$", re.MULTILINE)
COMMENT = re.compile(r"^#   (embedgrad .*)$", re.MULTILINE)


@dataclass(frozen=True)
class Snippet:
    """A command of the shell or a block of Python, and the file that shows it."""

    source: str
    language: str  # bash or python
    text: str

    @property
    def name(self) -> str:
        """The words of a command. A block of Python has no short name but its page's."""
        return " ".join(words_of(self.text)) if self.language == "bash" else f"python: {self.source}"


def words_of(command: str) -> list[str]:
    """The words of a command as the shell passes them on, without its comment."""
    return shlex.split(command, comments=True)


def fences(page: str) -> list[tuple[str, str]]:
    """Language and text of every fenced block of a page."""
    return FENCE.findall((ROOT / page).read_text(encoding="utf-8"))


def snippets(source: str) -> list[Snippet]:
    """The commands and Python blocks of a page, or the commands in the comments of a YAML file, in their order."""
    if source.endswith(".yaml"):
        return [Snippet(source, "bash", line) for line in COMMENT.findall((ROOT / source).read_text(encoding="utf-8"))]
    shown = []
    for language, text in fences(source):
        if language == "bash":
            shown += [Snippet(source, language, command) for command in _commands(text)]
        elif language == "python":
            shown.append(Snippet(source, language, text))
    return shown


def _commands(block: str) -> Iterator[str]:
    """The commands of a block. One goes on in the next line after a backslash, or while a quotation is open."""
    command = ""
    for line in block.replace("\\\n", " ").splitlines(keepends=True):
        command += line
        try:
            words = words_of(command)
        except ValueError:  # an open quotation
            continue
        if words:
            yield command
        command = ""
