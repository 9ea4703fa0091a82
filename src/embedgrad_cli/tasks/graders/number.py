"""Numbers in free text: "#### 1,224.00", "The answer is $1,224.", "It costs $1,224."."""

from __future__ import annotations

import re

from embedgrad_cli.tasks.graders.base import Grader
from embedgrad_cli.tasks.graders.numerals import exact_value, find, numbers, prepare, same_value

_MARKER = "####"
# Where the answer begins in "18 dollars for 3 days", "5 + 3 = 8 eggs", "3 times 6, which is 18".
_BEGINS = re.compile(r"(?:^|[=≈→:]|\\approx|\b(?:equals|equal\s+to|which\s+is|that\s+is|i\.e\.))[\W_]*$", re.IGNORECASE)
_LISTED = re.compile(r"[\W_]*(?:,|;|&|\bor\b|\band\b)[\W_]*")


class LastNumber(Grader):
    """Strict: the number after `####`, as GSM8K marks it.

    Lenient: or else the one that is boxed or announced, or else the last number in the text.

    Numbers are compared by value, without thousands separators, currency and units.
    """

    def in_form(self, text: str) -> str | None:
        marked = text.partition(_MARKER)[2].lstrip().partition("\n")[0]
        return next(iter(numbers(marked)), None)

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
