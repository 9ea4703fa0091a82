r"""The one reader of numbers: "$1,224.50", "70{,}000", "−3", "2 3/4", "0.\overline{3}", `1.2 \times 10^5`.

Values are exact fractions, and every number is spelled in one way. A number that something belongs to which makes it
another, or none ("±3", "√3", "> 3", "2π"), is spelled with it, so that it is never taken for the number alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

_ENDLESS = re.compile(r"[\d.]{300,}")  # more digits than are worth computing with, and at some length than Python reads
_LARGEST_EXPONENT, _LARGEST_BASE = 3_000, 12  # of a power that is computed here: digits of its base, less than that
_LONGEST = 60  # characters of a spelled number; a longer one keeps the spelling of the text
_APPROXIMATE = 6  # digits that a decimal must have to stand for a fraction that has no finite one

# --- one spelling of characters

_MINUS = dict.fromkeys(map(ord, "−–‐‑‒﹣－"), "-")
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"))
_SUPER, _SUB = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "₀₁₂₃₄₅₆₇₈₉₊₋"
_PLAIN = str.maketrans(_SUPER + _SUB, "0123456789+-n" + "0123456789+-")
_RAISED, _LOWERED = re.compile(f"[{_SUPER}]+"), re.compile(f"[{_SUB}]+")
_VULGAR = re.compile(r"(?<=\d)(?=[¼½¾⅐-⅞])")
_HTML = re.compile(r"</?(?:b|i|em|strong|u|span|p|br|div|code|li|td|answer)(?:\s+[a-z-]+=[^<>]*)?\s*/?>", re.IGNORECASE)


def plain_characters(text: str) -> str:
    """NFKC, every minus sign as "-", raised and lowered digits as `^{…}` and `_{…}`, nothing invisible."""
    text = text.translate(_INVISIBLE)
    text = _RAISED.sub(lambda run: f"^{{{run.group().translate(_PLAIN)}}}", text)
    text = _LOWERED.sub(lambda run: f"_{{{run.group().translate(_PLAIN)}}}", text)
    text = unicodedata.normalize("NFKC", _VULGAR.sub(" ", text))
    return text.replace("\u2044", "/").translate(_MINUS).replace("{-}", "-")


# --- thousands

# In groups of three with one separator throughout, and no further member before or behind: "1,200,3" is a list.
_THOUSANDS = re.compile(
    r"(?<![\d.,])(?<!\d )[1-9]\d{0,2}(?P<separator>\{,\}|,?(?:\\[,!;: ]|~) ?|,|['’ ])\d{3}(?:(?P=separator)\d{3})*"
    r"(?! ?\d|,\d|/\d)"
)
_DOTTED_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:\.\d{3}){2,}(?![\d.]*\d)")  # 1.234.567
_LIST = re.compile(r"(?:\(|\[|\\\{)[-+\d.,;\s]*(?:\)|\]|\\\})")
_BRACKETS = re.compile(r"(?:\(|\[|\\\{).*(?:\)|\]|\\\})", re.DOTALL)
_DECIMAL_COMMA = re.compile(r"(?<=\d)\{,\}(?=\d)")


def join_thousands(text: str, is_answer: bool = False) -> str:
    r"""The text with "70,000", `70{,}000`, `70\,000`, "70 000" and "70'000" as "70000".

    A plain comma or blank separates numbers in brackets: in all of them if the text `is_answer`, an interval or a
    point perhaps, and elsewhere in those that hold numbers alone.
    """
    spans = [match.span() for match in (_BRACKETS if is_answer else _LIST).finditer(text)]

    def join(match: re.Match[str]) -> str:
        separator = match["separator"]
        if separator in ", " and any(start <= match.start() < end for start, end in spans):
            return match.group()
        return match.group().replace(separator, "")

    text = _DOTTED_THOUSANDS.sub(lambda match: match.group().replace(".", ""), text)
    return _DECIMAL_COMMA.sub(".", _THOUSANDS.sub(join, text))


# --- numbers


@dataclass(frozen=True)
class Number:
    """A number in a text that `prepare` has made.

    Attributes:
        text: spelled in one way: "-1224.5", "1/3"; with what makes it another ("±3").
        value: None if something does.
        start, end: where it stands, with its sign and currency.
    """

    text: str
    value: Fraction | None
    start: int
    end: int

    @property
    def is_short(self) -> bool:
        """Whether its digits are few enough to be written."""
        return self.value is not None and _is_short(self.value)


_START = re.compile(r"\\[dtc]?frac(?![A-Za-z])|\.?\d")
_DECIMAL = r"(?:\d+(?:\.\d+)?|\.\d+)"
_EXPONENT = r"[-+]?\d{1,9}(?!\d)"
_TEN = r"\s*(?:\\times|\\cdot|[×·⋅*xX])\s*\{?10\}?\s*(?:\^|\*\*)\s*"
_REPEATING = re.compile(
    r"(?P<whole>\d*)\.(?P<once>\d*?)(?:"
    r"\\overline\s*\{\s*(?P<overline>\d+)\s*\}|\\(?:bar|dot)\s*(?:\{\s*(?P<bar>\d+)\s*\}|(?P<digit>\d))(?![\\\d]*\\dot)"
    r"|(?P<dotted>\\dot\s*\{?\d\}?\d*\\dot\s*\{?\d\}?)"
    r"|\((?P<parenthesis>\d+)\)(?!\d)|(?P<lined>(?:\d\u0305)+)"
    r"|(?:(?P<unit>\d)(?P=unit){2,}|(?P<units>\d{2,}?)(?P=units)+)(?:\.\.\.|\\[lcd]?dots))"
)
_SCIENTIFIC = re.compile(
    rf"({_DECIMAL})(?:[eE]({_EXPONENT})(?!\w)|{_TEN}(?:\{{\s*({_EXPONENT})\s*\}}|\(({_EXPONENT})\)|({_EXPONENT})))"
)
_POWER = re.compile(rf"(\d+)\s*(?:\^|\*\*)\s*(?:\{{\s*({_EXPONENT})\s*\}}|({_EXPONENT}))")
_SIMPLE = re.compile(_DECIMAL)
_FRACTION = re.compile(r"\\[dtc]?frac(?![A-Za-z])")
_GROUP = r"\s*(?:\{(?:[^{}]|\{[^{}]*\})*\}|[^\s{}])"
_ANY_FRACTION = re.compile(rf"{_FRACTION.pattern}{_GROUP}{_GROUP}")
_MIXED_GAP = re.compile(r"\s*(?:and\s+)?(?=\\[dtc]?frac)|\s+(?:and\s+)?(?=\d)|\s*\\[,; ]\s*(?=\d|\\)")
_SLASH = re.compile(r"\s*/\s*(-?)(?=[\d.])")
_SIGN = re.compile(
    r"(?:(?<![\w)\]}%])-|(?<=[$({=])\s*-\s*|\bnegative\s+|(?:^|(?<=\bis\s)|(?<==\s))minus\s+)?"
    r"(?:(?:US|USD|EUR)?\\?[$€£¥₹]\s?-?)?$",
    re.IGNORECASE,
)
_RAISED_OR_UNIT = re.compile(r"[\^_]\s*\{?\s*[-+]?$|(?<![A-Za-z])(?:mm|cm|dm|m|km|in|ft|yd|mi)$")
_MADE_OTHER_BEFORE = re.compile(
    r"(?:±|∓|\\pm|\\mp|\+/-|[√∛∜]|\\sqrt\s*(?:\[[^\]]*\]?)?|\bsqrt\s*\(?|[≠≤≥]|!="
    r"|\\(?:neq?|leq?|geq?|lt|gt|leqslant|geqslant)(?![a-z])|(?<![<=>|\-\n])[<>]=?|\\?\b(?:ln|log|sin|cos|tan)\s*\(?)"
    r"[^\S\n]*\{?[^\S\n]*\\?\$?[^\S\n]*$"
)
_MADE_OTHER_BEHIND = re.compile(
    r"[^\S\n]*(?:±|\\pm|[√π]|\\sqrt|\\pi(?![a-z])|\^(?!\s*\{?\s*(?:\\circ|°)))|\*\*[\w(]|i(?!\w)"
)
_AS_FAR_BACK = 40  # characters before a number that may change it


_LOST_SIGN = re.compile(r"^-\s+(?=[\d$\\.])")


def prepare(text: str, is_answer: bool = False) -> str:
    """The text as `find` reads it."""
    return join_thousands(plain_characters(_HTML.sub(" ", text)), is_answer)


def find(text: str) -> Iterator[Number]:
    """Every number in a text that `prepare` has made, in order."""
    at = 0
    while begin := _START.search(text, at):
        start = begin.start()
        read, other = _magnitude(text, start), _ANY_FRACTION.match(text, start) or _ENDLESS.match(text, start)
        at = read[1] if read else other.end() if other else begin.end()
        if read and not _RAISED_OR_UNIT.search(text, max(0, start - _AS_FAR_BACK), start):
            yield _number(text, start, at, read[0])
        elif other and not read:
            yield Number("".join(other.group().split()), None, start, at)


def numbers(text: str) -> list[str]:
    """Every number in the text, spelled in one way: "-1,224.50" as "-1224.5"."""
    return [number.text for number in find(prepare(text))]


def exact_value(text: str) -> Fraction | None:
    """The value of a prepared text that is a number and nothing else; None if it is anything else."""
    text = _LOST_SIGN.sub("-", text.strip())
    number = next(find(text), None)
    alone = number and number.start == 0 and number.end == len(text)
    return number.value if number and alone else None


def same_value(one: Fraction, other: Fraction) -> bool:
    """Whether they are equal, or one is the other's decimal, of six digits or more, where no finite one is exact."""
    return one == other or _approximates(one, other) or _approximates(other, one)


def _approximates(decimal: Fraction, fraction: Fraction) -> bool:
    digits = _finite_digits(decimal)
    if digits is None or digits < _APPROXIMATE or _finite_digits(fraction) is not None:
        return False
    return abs(decimal) * 10**digits >= 10 ** (_APPROXIMATE - 1) and abs(decimal - fraction) * 10**digits < 1


def _finite_digits(value: Fraction) -> int | None:
    """How many digits the number has behind its point; None if they do not end."""
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    return max(twos, fives) if rest == 1 else None


def _number(text: str, start: int, end: int, value: Fraction) -> Number:
    sign = _SIGN.search(text, max(0, start - _AS_FAR_BACK), start)
    first = sign.start() if sign else start
    before = _MADE_OTHER_BEFORE.search(text, max(0, first - _AS_FAR_BACK), first)
    behind = _MADE_OTHER_BEHIND.match(text, end)
    if before or behind:
        first, end = before.start() if before else first, behind.end() if behind else end
        return Number("".join(text[first:end].split()), None, first, end)
    if sign and re.search("-|n", sign.group(), re.IGNORECASE):  # "-", "negative" or "minus"
        value = -value
    return Number(_spell(value) or "".join(text[first:end].split()), value, first, end)


def _is_short(value: Fraction) -> bool:
    return max(abs(value.numerator).bit_length(), value.denominator.bit_length()) <= 3 * _LONGEST


def _spell(value: Fraction) -> str:
    """As an integer or a finite decimal, or else as a fraction; empty if that would be very long."""
    if not _is_short(value):
        return ""
    digits = _finite_digits(value)
    if digits is None:
        return f"{value.numerator}/{value.denominator}"
    size = str(abs(value.numerator) * 10**digits // value.denominator).rjust(digits + 1, "0")
    whole = size[: len(size) - digits] + (f".{size[-digits:]}" if digits else "")
    return f"-{whole}" if value < 0 else whole


# --- magnitudes: each returns a value and where it ends

_Read = tuple[Fraction, int]


def _magnitude(text: str, at: int) -> _Read | None:
    """A number without its sign: mixed, a fraction with a slash, or what these are made of."""
    read = _latex_fraction(text, at) or _atom(text, at)
    if read is None:
        return None
    value, end = read
    if text[at:end].isdigit() and (mixed := _mixed(text, value, end)):
        return mixed
    slash = _SLASH.match(text, end) if text[at - 1 : at] != "/" else None
    below = _atom(text, slash.end()) if slash else None
    if slash and below and below[0] and not _SLASH.match(text, below[1]):  # 12/25/2020 is a date
        return (-value if slash[1] else value) / below[0], below[1]
    return read


def _mixed(text: str, whole: Fraction, end: int) -> _Read | None:
    """The whole number with the proper fraction behind it, "2 3/4"."""
    gap = _MIXED_GAP.match(text, end)
    part = (_latex_fraction(text, gap.end()) or _slash_fraction(text, gap.end())) if gap else None
    return (whole + part[0], part[1]) if part and 0 < part[0] < 1 else None


_SLASH_FRACTION = re.compile(r"(\d{1,300})\s?/\s?(\d{1,300})(?!\d|/|\.\d)")


def _slash_fraction(text: str, at: int) -> _Read | None:
    match = _SLASH_FRACTION.match(text, at)
    return (Fraction(int(match[1]), int(match[2])), match.end()) if match and int(match[2]) else None


def _latex_fraction(text: str, at: int) -> _Read | None:
    match = _FRACTION.match(text, at)
    above = _argument(text, match.end()) if match else None
    below = _argument(text, above[1]) if above else None
    return (above[0] / below[0], below[1]) if above and below and below[0] else None


_ARGUMENT = re.compile(r"\s*(?:(\d)|\{\s*(-?)\s*)")
_CLOSED = re.compile(r"\s*\}")


def _argument(text: str, at: int) -> _Read | None:
    """What a LaTeX fraction is made of: a digit, or a number in braces."""
    match = _ARGUMENT.match(text, at)
    if not match:
        return None
    if match[1]:
        return Fraction(match[1]), match.end()
    read = _atom(text, match.end())
    closed = _CLOSED.match(text, read[1]) if read else None
    return (-read[0] if match[2] else read[0], closed.end()) if read and closed else None


def _atom(text: str, at: int) -> _Read | None:
    """A decimal, repeating or scientific, or a power of a whole number that is not too large to be computed."""
    if _ENDLESS.match(text, at):
        return None
    if match := _REPEATING.match(text, at):
        return _repeating(match), match.end()
    if match := _SCIENTIFIC.match(text, at):
        base, exponent = Fraction(match[1]), int(next(filter(None, match.groups()[1:])))
        if abs(exponent) < _LARGEST_EXPONENT:
            return base * Fraction(10) ** exponent, match.end()
    if match := _POWER.match(text, at):
        base, exponent = Fraction(match[1]), int(match[2] or match[3])
        if base and abs(exponent) < _LARGEST_EXPONENT and len(match[1]) < _LARGEST_BASE:
            return base**exponent, match.end()
    match = _SIMPLE.match(text, at)
    return (Fraction(match.group()), match.end()) if match else None


def _repeating(match: re.Match[str]) -> Fraction:
    r"""0.1\overline{6} is 0.1 and 6 / 90."""
    names = ("overline", "bar", "digit", "dotted", "parenthesis", "lined", "unit", "units")
    once, again = match["once"], re.sub(r"\D", "", next(filter(None, map(match.group, names))))
    shown = Fraction(int((match["whole"] or "0") + once), 10 ** len(once))
    return shown + Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(once))
