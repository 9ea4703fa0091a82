"""Labels in free text: `(A)`, "So the answer is No.", "**Negative**"; and what is too ambiguous to be an answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from embedgrad_cli.tasks.graders.base import Grader, announced

# A minus before a digit and a point between digits are no punctuation: "-50" is not "50".
_PUNCTUATION = re.compile(r"(?!-\d)(?!(?<=\d)[.,]\d)[^\w\s]|_")
_OPTION = re.compile(r"\(?([A-Za-z])\)?")
_MARKUP = r"[\s\"'“”‘’*_`:$]*"


class Label(Grader):
    """Strict: the whole first line, whatever its case and punctuation; with choices, only one of them is an answer.

    Lenient, with choices: or else the choice that the text announces ("So the answer is (B)."), or begins with ("Yes,
    because …"), or else the only one that it names. Two different choices, none of them announced, are no answer.
    Lenient, without choices: what the text announces, or else its first line.
    """

    def __init__(self, choices: Sequence[str] = ()) -> None:
        self.names = {plain(choice): choice for choice in choices}
        self.choices = sorted(choices, key=len, reverse=True)  # so that "not valid" is not taken for "valid"
        first, anywhere = self._any_of(_at_start), self._any_of(_anywhere)
        self.at_start = re.compile(rf"{_MARKUP}(?:{first})", re.IGNORECASE)
        self.leading = re.compile(rf"{_MARKUP}(?:{first}){_MARKUP}(?:[.,;:!)–—-]|$)", re.IGNORECASE | re.MULTILINE)
        self.named = re.compile(rf"(?<!\bnot )(?:{anywhere})", re.IGNORECASE)

    def strict(self, text: str) -> str | None:
        line = plain(text.strip().partition("\n")[0])
        return self.names.get(line) if self.names else line or None

    def lenient(self, text: str) -> str | None:
        said = announced(text)
        if not self.names:
            return (said and plain(said)) or self.strict(text)
        return (
            self.strict(text)
            or (said and self._choice(self.at_start.match(said)))
            or self._leading(text)
            or self._only_one(text)
        )

    def same(self, gold: str, answer: str) -> bool:
        return plain(gold) == plain(answer)

    def gold(self, target: str) -> str | None:
        return self.strict(target)

    def _leading(self, text: str) -> str | None:
        """The choice that the text begins with, unless another follows at once ("yes, no")."""
        match = self.leading.match(text)
        first, then = self._choice(match), self._choice(self.at_start.match(text, match.end())) if match else None
        return first if then in (None, first) else None

    def _only_one(self, text: str) -> str | None:
        named = {self._choice(match) for match in self.named.finditer(text)}
        return named.pop() if len(named) == 1 else None

    def _choice(self, match: re.Match[str] | None) -> str | None:
        """The choice whose alternative matched: every one is a group of its own."""
        return self.choices[match.lastindex - 1] if match and match.lastindex else None

    def _any_of(self, form: Callable[[str], str]) -> str:
        return "|".join(f"({form(choice)})" for choice in self.choices)


def plain(label: str) -> str:
    """Without case, punctuation and extra blanks; a label of punctuation alone stays as it is."""
    bare = " ".join(_PUNCTUATION.sub(" ", label).casefold().split())
    return bare or label.strip()


def _at_start(choice: str) -> str:
    """Where an answer is expected, an option's bare capital letter will do: `(B)`, `B`, `option B`."""
    if option := _OPTION.fullmatch(choice):
        letter = option[1]
        return rf"(?:(?:option|choice)\s+)?(?:\({letter}\)|(?-i:{letter})(?![\w'’]))"
    return _words(choice)


def _anywhere(choice: str) -> str:
    """Elsewhere a bare letter may be a word ("a"), so an option is `(B)` or `option B`."""
    if option := _OPTION.fullmatch(choice):
        letter = option[1]
        return rf"(?<!\w)\({letter}\)|\b(?:option|choice)\s+{letter}\b"
    return _words(choice)


def _words(choice: str) -> str:
    """The choice as whole words, with any white space between them."""
    words = r"\s+".join(map(re.escape, choice.split()))
    before = r"(?<!\w)" if choice.strip()[:1].isalnum() else ""
    after = r"(?!\w|[-'’]\w)" if choice.strip()[-1:].isalnum() else ""
    return f"{before}{words}{after}"
