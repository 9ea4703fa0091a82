"""Numbers in free text: "#### 1,224.00", "The answer is $1,224.", "It costs $1,224."."""

from __future__ import annotations

import re

from embedgrad_cli.tasks.graders.base import Grader
from embedgrad_cli.tasks.graders.numerals import exact_value, find, numbers, prepare, same_value

_MARKER = "####"
_HEADING = re.compile(r"[\W_]*(?:step|part|case|method|question|problem|example)\b", re.IGNORECASE)  # "#### Step 1"
_AT_ONCE = re.compile(r"[\W_]*")
# Where the answer begins in "18 dollars for 3 days", "5 + 3 = 8 eggs", "3 times 6, which is 18".
_BEGINS = re.compile(r"(?:^|[=≈→:]|\\approx|\b(?:equals|equal\s+to|which\s+is|that\s+is|i\.e\.))[\W_]*$", re.IGNORECASE)
_LISTED = re.compile(r"[\W_]*(?:,|;|&|\bor\b|\band\b)[\W_]*")


class LastNumber(Grader):
    """Strict: the number after `####`, as GSM8K marks it; of several marks the first with a number right behind it.

    Lenient: or else the one that is boxed or announced, or else the last number in the text.

    Numbers are compared by value, without thousands separators, currency and units.
    """

    def in_form(self, text: str) -> str | None:
        lines = [prepare(part.lstrip().partition("\n")[0]) for part in text.split(_MARKER)[1:]]
        marked = [(line, number) for line in lines if (number := next(find(line), None))]
        at_once = (number.text for line, number in marked if _AT_ONCE.fullmatch(line, 0, number.start))
        behind_words = (number.text for line, number in marked if not _HEADING.match(line))
        return next(at_once, None) or next(behind_words, None)

    def read(self, place: str) -> str | None:
        text = prepare(place)
        found = list(find(text))
        begin = [number for number in found if _BEGINS.search(text, max(0, number.start - 30), number.start)] or found[
            -1:
        ]
        if not begin:
            return None
        answer = begin[-1]
        following = next((number for number in found if number.start >= answer.end), None)
        if following and following.text != answer.text and _LISTED.fullmatch(text, answer.end, following.start):
            return " ".join(text.split())  # a list is none of its numbers
        return answer.text

    def otherwise(self, text: str) -> str | None:
        return last_number(text)

    def same(self, gold: str, answer: str) -> bool:
        gold = self.lenient(gold) or gold
        one, other = exact_value(prepare(gold)), exact_value(prepare(answer))
        return gold == answer if one is None or other is None else same_value(one, other)

    def gold(self, target: str) -> str | None:
        return self.lenient(target)


def last_number(text: str) -> str | None:
    """The last number in the text, spelled in one way; None if there is none."""
    return next(reversed(numbers(text)), None)
