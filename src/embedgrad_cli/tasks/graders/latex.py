r"""Answers in LaTeX: finding the boxed one, and deciding whether two are the same.

They are normalised before math-verify is asked, because it alone takes `27.`, `3\%`, `90°`, `\textbf{5}` or
`f(x)=\dfrac12` for other answers than those without the ornament.
"""

from __future__ import annotations

import re
from functools import lru_cache

from embedgrad_cli.tasks.graders.algebra import same_by_algebra

LONGEST_ANSWER = 300  # characters that are worth a computer algebra system; beyond, texts are compared

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_UNBRACED = re.compile(r"[^{}$\n]+")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)

_FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$([^$]+?)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_WRAPPERS = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_UNITS = re.compile(r"(?<=[0-9}\s])\\(?:text|textrm|mathrm|mbox)\s*\{\s*[A-Za-z][^{}]*\}(?:\^\{?[23]\}?)?$")
_DEGREES = re.compile(r"\^\s*(?:\\circ|\{\s*\\circ\s*\})|\\degree|°")
_SPACES = re.compile(r"\\[,;:! ]|\\q?quad|~|\s+")
_NOISE = re.compile(r"\\(?:left|right|displaystyle)(?![A-Za-z])|\\?\$|\\?%")
_THOUSANDS = re.compile(r"(?<=[0-9])(?:,|\{,\})(?=[0-9]{3}(?![0-9]))")
_NAME_BEFORE = re.compile(r"^[A-Za-z](?:\([A-Za-z]\))?(?:=|\\in(?![A-Za-z]))")
_FRACTION = re.compile(r"\\[dt]frac(?![A-Za-z])")
_BARE_FRACTION = re.compile(r"\\frac(?:(\d)(\d)|(\d)\{([^{}]+)\}|\{([^{}]+)\}(\d))")
_BARE_ROOT = re.compile(r"\\sqrt(\w)")
_SLASH = re.compile(r"^(-?)(\w+)/(\w+)$")


def last_boxed(text: str) -> str | None:
    r"""What stands in the last complete `\boxed{…}` (or `\fbox{…}`, `\boxed 2`); None if there is none."""
    for box in reversed(list(_BOX.finditer(text))):
        content = _content_at(text, box.end())
        if content:
            return content
    return None


def last_formula(text: str) -> str | None:
    r"""What stands in the last `$…$`, `$$…$$`, `\(…\)` or `\[…\]`; None if there is none."""
    found = [next(content for content in match.groups() if content) for match in _FORMULA.finditer(text)]
    return found[-1].strip().rstrip(".") if found else None


def _content_at(text: str, start: int) -> str | None:
    """The braced group, or the rest of the formula, at `start`; None if its brace is never closed."""
    if not text.startswith("{", start):
        bare = _UNBRACED.match(text, start)
        return bare.group().strip().rstrip(".") if bare else None
    depth = 0
    for brace in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)  # an escaped brace is a character, not a bracket
        if depth == 0:
            return text[start + 1 : brace.start()].strip()
    return None


def same_answer(gold: str, answer: str) -> bool:
    """Whether two answers mean the same: equal after normalisation, or by math-verify.

    Raises:
        Undecided: math-verify would take too long.
    """
    if normalise_latex(gold) == normalise_latex(answer):
        return True
    if max(len(gold), len(answer)) > LONGEST_ANSWER:
        return False
    return same_by_algebra(gold, answer)


@lru_cache(maxsize=4096)
def normalise_latex(answer: str) -> str:
    r"""One spelling for answers that differ in typography: `\dfrac12` and `\frac{1}{2}`, `90^\circ` and `90`."""
    text = answer.strip().rstrip(".")
    text = _UNITS.sub("", text)
    text = _WRAPPERS.sub(r"\1", text)
    text = _NOISE.sub("", _DEGREES.sub("", text))
    text = _SPACES.sub("", text)
    text = _THOUSANDS.sub("", text)
    text = _NAME_BEFORE.sub("", text)
    text = _FRACTION.sub(r"\\frac", text)
    text = _BARE_FRACTION.sub(_braced_fraction, text)
    text = _BARE_ROOT.sub(r"\\sqrt{\1}", text)
    text = _SLASH.sub(r"\1\\frac{\2}{\3}", text)
    return _plain_number(text)


def _braced_fraction(match: re.Match[str]) -> str:
    above, below = (group for group in match.groups() if group is not None)
    return rf"\frac{{{above}}}{{{below}}}"


def _plain_number(text: str) -> str:
    """`.50` as `0.5`, `3.00` as `3`; everything else as it is."""
    number = re.fullmatch(r"(-?)([0-9]*)(?:\.([0-9]*))?", text)
    if not number or not (number[2] or number[3]):
        return text
    whole, fraction = number[2].lstrip("0") or "0", (number[3] or "").rstrip("0")
    size = f"{whole}.{fraction}" if fraction else whole
    return size if size == "0" else number[1] + size
