"""Labels in free text: `(A)`, "So the answer is No.", "**Negative**"; and what is too ambiguous to be an answer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from embedgrad_cli.tasks.graders.base import Grader
from embedgrad_cli.tasks.graders.numerals import plain_characters
from embedgrad_cli.tasks.graders.places import without_thoughts

# A minus before a digit and a point between digits are no punctuation: "-50" is not "50".
_PUNCTUATION = re.compile(r"(?!-\d)(?!(?<=\d)[.,]\d)[^\w\s]|_")
_OPTION = re.compile(r"[(\[]?([A-Za-z])[)\].:]?")
_MARKUP = r"[\s\"'“”‘’*_`:$#>\[{]{0,40}"
_LATEX = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|boldsymbol|boxed)\s*\{([^{}]*)\}|\\[()\[\],;:! ]"
)
_BE = (
    r"(?:is|are|was|were|be|seems?|looks?|cannot|can|could|would|should|might|may|does|do|says?|states?"
    r"|isn['’]t|can['’]t)\b"
)
_RIGHT = (
    r"(?:is|was|must\s+be|would\s+be|has\s+to\s+be|seems)\s+(?:therefore\s+|thus\s+|clearly\s+|indeed\s+)?"
    r"(?:the\s+)?(?:only\s+|most\s+)?(?:one\s+)?(?:correct|right|best|true|answer|likely|appropriate|accurate)\b(?!\s+(?:about|that|to))"
)
_WRONG = re.compile(r"\b(?:wrong|incorrect|false|not|cannot|unlikely|ruled\s+out|eliminated)\b|n['’]t\b", re.IGNORECASE)
_DENIED = re.compile(r"(?:\b(?:not|never|cannot)|n['’]t)(?:\s+be)?(?:\s+(?:an?|the))?[\s*_`\"'“‘]+\Z", re.IGNORECASE)
_AS_FAR_BACK = 40  # characters before a choice that may deny it
_CLAUSE = re.compile(r"[^.,;:!?\n(]*?(?=[.,;:!?\n(]|\b(?:because|since|as)\b|\Z)")


class Label(Grader):
    """Strict: the whole first line, whatever its case and punctuation; with choices, only one of them is an answer.

    Lenient, with choices: or else the choice that the text boxes or announces ("So the answer is (B)."), calls right
    ("(B) is correct"), or begins with ("Yes, because …", "(B) the crow"), or else the only one that it names. Two
    different choices, none of them announced, are no answer.
    Lenient, without choices: what the text boxes or announces, or else its first line.
    """

    def __init__(self, choices: Sequence[str] = ()) -> None:
        # "A+" and "A-" are alike without punctuation: then only what stands there tells them apart.
        self.names = [(form, _told_apart(form, choices)) for form in (_bare, _caseless, plain)]
        self.choices = sorted(choices, key=len, reverse=True)  # so that "not valid" is not taken for "valid"
        first, anywhere = self._any_of(_at_start), self._any_of(_anywhere)
        options = "|".join(_at_start(choice) for choice in self.choices if _OPTION.fullmatch(choice)) or r"(?!)"
        flags = re.IGNORECASE | re.MULTILINE
        self.at_start = re.compile(rf"(?:{_MARKUP}|\s*-\s+)(?:{first})", flags)
        self.ends = re.compile(rf"{_MARKUP}(?:[.,;:!)–—-]|$|(?:because|since)\b)", flags)
        self.right = [re.compile(rf"(?<![\w\\])(?:{first}){_MARKUP}\s{_RIGHT}", flags)]
        if any(map(_OPTION.fullmatch, choices)):  # "(B) the crow is right"; a bare letter may be a word there
            self.right.append(re.compile(rf"(?:{anywhere})[^.;:\n]{{0,60}}?\s{_RIGHT}", flags))
        self.named = re.compile(anywhere, flags)
        self.option = re.compile(rf"(?:{options})(?!\s+{_BE})", flags)
        closed = rf"{_MARKUP}[)\].:]?\s*"
        self.also = re.compile(rf"{closed}(?:/|&|\bor\b|\band\b){_MARKUP}(?:{first})", flags)
        self.beside = re.compile(rf"{closed},?{_MARKUP}(?:{first})(?!\s+{_BE})", flags)
        self.either = re.compile(rf"[^.\n]*?\bor\s+(?:(?:maybe|perhaps|possibly)\s+)?(?:{options})", flags)
        self.has_latex = any("\\" in choice for choice in choices)

    def in_form(self, text: str) -> str | None:
        line = text.strip().partition("\n")[0]
        return self._whole(line) if self.choices else plain(line) or None

    def lenient(self, text: str) -> str | None:
        if self.choices:
            return super().lenient(text)
        return self.said(without_thoughts(text)) or self.strict(text)  # any first line is a label

    def read(self, place: str) -> str | None:
        place = self._characters(place)
        if not self.choices:
            return plain(place) or None
        return self._whole(place) or self._first(place) or self._only_one(place)

    def otherwise(self, text: str) -> str | None:
        text = self._characters(text)
        return self._called_right(text) or self._leading(text) or self._only_one(text)

    def same(self, gold: str, answer: str) -> bool:
        return gold == answer if {gold, answer} <= set(self.choices) else plain(gold) == plain(answer)

    def _whole(self, text: str) -> str | None:
        """The choice that the text is, and nothing else."""
        return next((names[key] for form, names in self.names if (key := form(text)) in names), None)

    def _first(self, text: str) -> str | None:
        """The choice that the text begins with, unless another is as good ("(A) or (B)")."""
        match = self.at_start.match(text)
        if not match:
            return None
        first, end = self._choice(match), match.end()
        then = self._choice(self.also.match(text, end)) or self._choice(self.beside.match(text, end))
        return first if then in (None, first) and not self.either.match(text, end) else None

    def _called_right(self, text: str) -> str | None:
        matches = [match for pattern in self.right for match in pattern.finditer(text)]
        called = {self._choice(match) for match in matches if not _WRONG.search(text, *match.span())}
        return called.pop() if len(called) == 1 else None

    def _leading(self, text: str) -> str | None:
        """The choice that an answer begins with, and not a list of options or what is said about one."""
        match = self.at_start.match(text)
        if not match or not self._first(text):
            return None
        choice, behind = self._choice(match), match.end()
        if choice is None or not _OPTION.fullmatch(choice):
            return choice if self.ends.match(text, behind) else None
        bracketed = match.group().rstrip().endswith((")", "]")) or text[behind : behind + 1] in (")", "]")
        clause = _CLAUSE.match(text, behind)
        if not (bracketed or self.ends.match(text, behind)) or (clause and _doubted(clause)):
            return None
        if re.match(rf"[)\]*_]*\s+{_BE}", text[behind:], re.IGNORECASE):
            return None
        lines = [line.strip(" \t*_->#") for line in text.strip().split("\n")[1:]]
        others = {self._choice(self.at_start.match(line)) for line in lines if self.option.match(line)}
        return choice if others <= {choice, None} else None

    def _only_one(self, text: str) -> str | None:
        named = {self._choice(match) for match in self.named.finditer(text) if not _is_denied(match)}
        return named.pop() if len(named) == 1 else None

    def _choice(self, match: re.Match[str] | None) -> str | None:
        """The choice whose alternative matched: every one is a group of its own."""
        return self.choices[match.lastindex - 1] if match and match.lastindex else None

    def _any_of(self, form: Callable[[str], str]) -> str:
        return "|".join(f"({form(plain_characters(choice))})" for choice in self.choices)

    def _characters(self, text: str) -> str:
        r"""The text without the LaTeX around words, `\text{B}`, unless the choices are LaTeX themselves."""
        text = plain_characters(text)
        if self.has_latex:
            return text
        while (bare := _LATEX.sub(lambda match: match[1] or " ", text)) != text:
            text = bare
        return text


def _is_denied(named: re.Match[str]) -> bool:
    """Whether a choice stands behind "not", as in "it isn't (A)" or "not a positive one"."""
    return bool(_DENIED.search(named.string, max(0, named.start() - _AS_FAR_BACK), named.start()))


def _doubted(clause: re.Match[str]) -> bool:
    return bool(_WRONG.search(clause.group())) or clause.string.startswith("?", clause.end())


def _told_apart(form: Callable[[str], str], choices: Sequence[str]) -> dict[str, str]:
    """The choices by their form, where no two have the same one."""
    count = Counter(map(form, dict.fromkeys(choices)))
    return {form(choice): choice for choice in choices if count[form(choice)] == 1}


def _bare(label: str) -> str:
    return plain_characters(label).strip(" \t*_`\"'“”‘’.,;:")


def _caseless(label: str) -> str:
    return " ".join(_bare(label).casefold().split())


def plain(label: str) -> str:
    """Without case, punctuation and extra blanks; a label of punctuation alone stays as it is."""
    label = plain_characters(label)
    bare = " ".join(_PUNCTUATION.sub(" ", label).casefold().split())
    return bare or label.strip()


def _at_start(choice: str) -> str:
    """Where an answer is expected, an option's bare capital letter will do: `(B)`, `B`, `option B`."""
    if option := _OPTION.fullmatch(choice):
        letter = option[1]
        return (
            rf"(?:(?:option|choice|answer|letter|statement)\s+)?[*_\"'“”]{{0,4}}"
            rf"(?:\({letter}\)|\[{letter}\]|{letter}\)|(?-i:{letter.upper()})(?![\w'’]))"
        )
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
