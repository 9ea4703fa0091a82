"""Strict structuring: nothing is converted that is not what its type says, and every problem is found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from embedgrad_cli.storage.structure import NOTHING, NotExpected, Pair, Problem, make_converter, structure


@dataclass(frozen=True)
class Inner:
    word: str
    size: int = field(default=1, metadata={"largest": 9})


@dataclass(frozen=True)
class Outer:
    names: list[str]
    inner: Inner
    items: list[Inner]
    pair: Pair
    share: float | None
    count: int | Literal["auto"]
    by_name: dict[str, float]
    note: str | None = None
    mood: Literal["calm", "wild"] | None = None


GOOD: dict[str, Any] = {
    "names": ["a"],
    "inner": {"word": "x", "size": 2},
    "items": [{"word": "y"}],
    "pair": [0.5, 1],
    "share": None,
    "count": "auto",
    "by_name": {"z": 1},
}
CONVERTER = make_converter()


def test_there_and_back() -> None:
    outer, problems = structure(GOOD, Outer, CONVERTER)
    assert problems == []
    assert outer == Outer(["a"], Inner("x", 2), [Inner("y")], (0.5, 1.0), None, "auto", {"z": 1.0})
    plain = CONVERTER.unstructure(outer)
    assert "note" not in plain, "what may be absent is left out"
    assert plain["share"] is None
    assert structure(plain, Outer, CONVERTER) == (outer, [])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"names": "a"}, Problem("names", "a", "a list such as [a, b]")),
        ({"names": [1]}, Problem("names[0]", 1, "text")),
        ({"mood": "mild"}, Problem("mood", "mild", "one of calm, wild; did you mean wild")),
        ({"mood": 3}, Problem("mood", 3, "one of calm, wild")),
        ({"inner": None}, Problem("inner", None, "a group with the keys word, size")),
        ({"inner": {"word": "x", "size": True}}, Problem("inner.size", True, "a whole number")),
        ({"items": [{"word": "y"}, {}]}, Problem("items[1].word", NOTHING, "there")),
        ({"pair": [1]}, Problem("pair", [1], "a list of two numbers")),
        ({"share": "half"}, Problem("share", "half", "a number")),
        ({"count": "many"}, Problem("count", "many", "a whole number or auto")),
        ({"by_name": {"z": "one"}}, Problem("by_name.z", "one", "a number")),
        ({"more": 1}, Problem("more", 1, None)),
    ],
)
def test_a_problem_is_named(changes: dict[str, Any], problem: Problem) -> None:
    assert structure({**GOOD, **changes}, Outer, CONVERTER) == (None, [problem])


def test_all_problems_are_found_at_once() -> None:
    plain = {**GOOD, "names": 1, "inner": {"word": 2, "size": "x", "odd": 0}, "extra": 1}
    _, problems = structure(plain, Outer, CONVERTER, key="task")
    keys = {problem.key for problem in problems}
    assert keys == {"task.names", "task.inner.word", "task.inner.size", "task.inner.odd", "task.extra"}


def test_whole_numbers_may_be_written_as_floats_and_nothing_else() -> None:
    assert structure(1e3, int, CONVERTER) == (1000, [])
    for value in (1.5, "3", True, None):
        assert structure(value, int, CONVERTER)[1] != []


def test_fields_can_be_checked_beyond_their_type() -> None:
    def check(value: Any, item: Any) -> None:
        if value == 10 and item.metadata.get("largest") == 9:
            raise NotExpected("9 or less")

    strict = make_converter(check=check)
    assert structure({"word": "x", "size": 10}, Inner, strict)[1] == [Problem("size", 10, "9 or less")]
