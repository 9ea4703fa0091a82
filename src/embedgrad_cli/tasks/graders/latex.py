r"""Answers in LaTeX: finding formulas, and deciding whether two answers are the same.

They are cleaned and normalised before math-verify is asked, because it alone takes `27.`, `3\%`, `90°`, `\textbf{5}` or
`f(x)=\dfrac12` for other answers than those without the ornament, and numbers are compared exactly, because it rounds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from embedgrad_cli.tasks.graders.algebra import same_by_algebra
from embedgrad_cli.tasks.graders.numerals import exact_value, find, prepare, same_value
from embedgrad_cli.tasks.graders.quantities import UNIT

LONGEST_ANSWER = 300  # characters that are worth a computer algebra system; beyond, texts are compared

_DISPLAYED = re.compile(r"\$\$(.+?)\$\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_DOLLAR = re.compile(r"(?<!\\)\$")
# "$18 every day, so $18": between these two is no formula, but money and prose. A dollar before a digit closes none,
# as in Pandoc's Markdown.
_COMMAND = re.compile(r"\\[A-Za-z]+(?:\s*\{[^{}]*\})?")
_PROSE = re.compile(
    r"[A-Za-z]{2,}[,.;:]?\s+(?:\(?[A-Za-z]{2,}|a\s)|\n\s*\n"  # two words, two paragraphs
    r"|^\s*\d[\d,.]*\s+[A-Za-z]{2,}\W*\s$"  # "5 and "
)
_JOINED = re.compile(r"\s*(?:,|,?\s*\b(?:and|or)\b|;)\s*")
_BEFORE_FORMULA = re.compile(r"[\s*_\"'“”]*")

# --- one spelling of symbols

_SETS = str.maketrans({letter: rf"\mathbb{{{name}}}" for letter, name in zip("ℝℕℤℚℂ", "RNZQC", strict=True)})
_GREEK = {"π": "pi", "θ": "theta", "α": "alpha", "β": "beta", "γ": "gamma", "λ": "lambda", "φ": "phi", "ω": "omega"}
_SIGNS = {
    **{"∞": "infty", "∅": "emptyset", "≤": "le", "≥": "ge", "≠": "ne", "±": "pm", "∓": "mp", "×": "times", "·": "cdot"},
    **{"⋅": "cdot", "÷": "div", "∪": "cup", "∩": "cap", "∈": "in", "√": "sqrt", "∛": "sqrt[3]"},
}
_SYMBOLS = str.maketrans({sign: rf"\{name} " for sign, name in (_GREEK | _SIGNS).items()})
_ROOT = re.compile(r"\\sqrt(\[3\])? +(\d+|[A-Za-z]|\\[a-z]+(?= ))|\\sqrt(\[3\])? *\(([^()]*)\)|\bsqrt *\(([^()]*)\)")
_SYNONYMS = [
    (re.compile(r"\\varnothing(?![A-Za-z])|\\\{\s*\\\}"), r"\\emptyset"),
    (re.compile(r"\\(?:leq|leqslant)(?![A-Za-z])|<="), r"\\le "),
    (re.compile(r"\\(?:geq|geqslant)(?![A-Za-z])|>="), r"\\ge "),
    (re.compile(r"\\neq(?![A-Za-z])|!="), r"\\ne "),
    (re.compile(r"\\[lc]?dots(?![A-Za-z])|\.\.\."), r"\\ldots "),
    (re.compile(r"^\s*(?:USD|EUR|GBP|US(?=\s*\\?\$))\s*(?=[\d$\\.])"), ""),
]
_AND_OR = re.compile(
    r"\s*,?\s*(?:\\(?:text|mbox|textrm)\s*\{\s*(?:and|(?P<or>or))\s*\}|(?<=[\w})])\s(?:and|(?P<word>or))\s|(?P<lor>\\lor\b))"
    r"\s*"
)
_UNUSUAL = re.compile(
    r"\d[eE][-+]?\d|\\(?:overline|bar|dot)(?![A-Za-z])|\u0305|\.\d*\(|\.\.\.|\d\s+\d|10\s*(?:\^|\*\*)"
)

# --- ornaments

_WRAPPERS = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname|boldsymbol)\s*\{([^{}]*)\}")
_UNITS = re.compile(rf"(?<=[0-9}}\s%]){UNIT}$")
_DEGREES = re.compile(r"(?:\^\s*(?:\\circ|\{\s*\\circ\s*\})|\\degree|°)(?:\s*[CF]$)?")
_SPACES = re.compile(r"\\[,;:! ]|\\q?quad|~|\s+")
_NOISE = re.compile(r"\\(?:left|right|displaystyle)(?![A-Za-z])|\\?[$%]|[€£¥₹]|^\*+|\*+$")
_NAME_BEFORE = re.compile(r"^\s*[A-Za-z](?:\([A-Za-z]\))?\s*(?:=|\\in(?![A-Za-z]))\s*")
_FRACTION = re.compile(r"\\[dt]frac(?![A-Za-z])")
_BARE_FRACTION = re.compile(r"\\frac(?:(\d)(\d)|(\d)\{([^{}]+)\}|\{([^{}]+)\}(\d))")
_BARE_ROOT = re.compile(r"\\sqrt(\w)")
_SLASH = re.compile(r"^(-?)(\w+)/(\w+)$")
_DOTS = r"\ldots"
_RELATION = re.compile(r"[<>]|\\(?:[lg]e|ne) ")
_HALF_RELATION = re.compile(r"\s*(?=[<>]|\\(?:[lg]e|ne) )")


def formulas(text: str) -> tuple[str | None, list[str]]:
    r"""What the text begins with, if that is a formula, and every formula: `$…$`, `$$…$$`, `\(…\)` or `\[…\]`.

    `$3$ and $4$` at the beginning is one answer, "3, 4".
    """
    places = sorted(_places(text))
    found = [content.strip().rstrip(".") for _, _, content in places]
    if not places or not _BEFORE_FORMULA.fullmatch(text, 0, places[0][0]):
        return None, found
    joined = 1
    while joined < len(places) and _JOINED.fullmatch(text, places[joined - 1][1], places[joined][0]):
        joined += 1
    return ", ".join(found[:joined]), found


def _places(text: str) -> Iterator[tuple[int, int, str]]:
    """Where each formula starts and ends, and what it holds."""
    for match in _DISPLAYED.finditer(text):
        yield match.start(), match.end(), next(filter(None, match.groups()))
    text = _DISPLAYED.sub(lambda match: "\n" * len(match.group()), text)
    opening = None
    for dollar in _DOLLAR.finditer(text):
        content = "" if opening is None else text[opening + 1 : dollar.start()]
        if opening is not None and content.strip() and not _is_money(content, text[dollar.end() : dollar.end() + 1]):
            yield opening, dollar.end(), content
            opening = None
        else:
            opening = dollar.start()


def _is_money(between: str, behind: str) -> bool:
    """Whether the dollars around this text, with this character behind them, are money's."""
    return behind.isdigit() or bool(_PROSE.search(_COMMAND.sub("\0", between)))


def same_answer(gold: str, answer: str) -> bool:
    """Whether two answers mean the same: as numbers, exactly; or else after normalisation, or by math-verify.

    Raises:
        Undecided: math-verify would take too long.
    """
    gold, answer = clean_latex(gold), clean_latex(answer)
    values = exact_value(_bare(gold)), exact_value(_bare(answer))
    if values[0] is not None and values[1] is not None:
        return same_value(values[0], values[1])
    if normalise_latex(gold) == normalise_latex(answer):
        return True
    if _DOTS in gold + answer:  # math-verify would leave them out
        gold, answer = (text.rpartition("=")[2] for text in (gold, answer))
        if _DOTS in gold + answer:
            return _same_members(gold, answer)
    if max(len(gold), len(answer)) > LONGEST_ANSWER:
        return False
    return same_by_algebra(gold, answer)


def _same_members(gold: str, answer: str) -> bool:
    """Whether two lists with dots are the same, member by member."""
    ones, others = gold.split(","), answer.split(",")
    return len(ones) == len(others) > 1 and all(map(same_answer, ones, others))


@lru_cache(maxsize=4096)
def clean_latex(answer: str) -> str:
    r"""One spelling of characters and numbers: `−∞` as `-\infty`, "70,000" as 70000, `0.\overline{3}` as `1/3`."""
    text = " ".join(prepare(answer.translate(_SETS), is_answer=True).split())
    text = _ROOT.sub(_braced_root, _with_usual_numbers(text).translate(_SYMBOLS))
    for pattern, name in _SYNONYMS:
        text = pattern.sub(name, text)
    text = _HALF_RELATION.sub("x", text, count=1) if _HALF_RELATION.match(text) else text
    text = _AND_OR.sub(_either if _RELATION.search(text) else ", ", text)
    return text.strip().rstrip(".").strip()


def _either(match: re.Match[str]) -> str:
    return r" \lor " if any(match.groups()) else match.group()


def _with_usual_numbers(text: str) -> str:
    """Mixed, repeating and scientific numbers as whole numbers or fractions."""
    parts, start = [], 0
    for number in find(text):
        if number.value is not None and number.is_short and _UNUSUAL.search(text, number.start, number.end):
            sign, above, below = "-" * (number.value < 0), abs(number.value.numerator), number.value.denominator
            parts += [text[start : number.start], sign, str(above) if below == 1 else rf"\frac{{{above}}}{{{below}}}"]
            start = number.end
    return "".join([*parts, text[start:]])


def _bare(text: str) -> str:
    """The text without units, name and ornaments, its blanks kept."""
    text = _WRAPPERS.sub(r"\1", _UNITS.sub("", text))
    return _NAME_BEFORE.sub("", _NOISE.sub("", _DEGREES.sub("", text))).strip().rstrip(".")


@lru_cache(maxsize=4096)
def normalise_latex(text: str) -> str:
    r"""One spelling for clean answers that differ in typography: `\dfrac12` and `\frac{1}{2}`, `90^\circ` and `90`."""
    text = _SPACES.sub("", _bare(text))
    text = _NAME_BEFORE.sub("", text)
    text = _FRACTION.sub(r"\\frac", text)
    text = _BARE_FRACTION.sub(_braced_fraction, text)
    text = _BARE_ROOT.sub(r"\\sqrt{\1}", text)
    return _SLASH.sub(r"\1\\frac{\2}{\3}", text)


def _braced_fraction(match: re.Match[str]) -> str:
    above, below = (group for group in match.groups() if group is not None)
    return rf"\frac{{{above}}}{{{below}}}"


def _braced_root(match: re.Match[str]) -> str:
    index, of = match[1] or match[3] or "", next(filter(None, (match[2], match[4], match[5])), "")
    return rf"\sqrt{index}{{{of}}}"
