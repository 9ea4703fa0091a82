"""What counts as the answer in a text, and when two answers are the same."""

from __future__ import annotations

import threading
import time

import pytest

from embedgrad_cli.errors import ConfigError
from embedgrad_cli.tasks import graders


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("48 / 2 = 24\n#### 24", "24"),
        ("#### 1,234,567", "1234567"),
        ("#### -3", "-3"),
        ("#### $5 dollars", "5"),
        ("#### -$5.50", "-5.5"),
        ("#### $-5", "-5"),
        ("#### 18\nQ: What is 5 + 5?\n#### 10", "18"),
        ("#### none, so 7", "7"),
        ("#### nothing\nThe answer is 8.", "8"),
        ("The answer is 72.", "72"),
        ("It costs $1,200.00.", "1200"),
        ("He has 3, 4 and 5,6", "6"),
        ("10-4", "4"),
        ("10 - 4", "4"),
        ("(2)-4", "4"),
        ("x = -4", "-4"),
        ("x=−4", "-4"),
        ("about .50", "0.5"),
        ("007", "7"),
        ("-0", "0"),
        ("50%", "50"),
        ("12kg", "12"),
        ("no number", None),
        ("", None),
        ("####", None),
    ],
)
def test_last_number(text: str, answer: str | None) -> None:
    assert graders.get("last-number").extract(text) == answer


@pytest.mark.parametrize(
    ("gold", "output", "right"),
    [
        ("72", "#### 72", True),
        ("72", "#### 72.00", True),
        ("1,000", "1000 apples", True),
        ("72", "#### -72", False),
        ("72", "#### 7\n72", False),
        ("72", "I do not know", None),
    ],
)
def test_last_number_grades(gold: str, output: str, right: bool | None) -> None:
    assert graders.get("last-number").grade(gold, output) is right


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"$\boxed 2$", "2"),
        (r"$\boxed {17}.$", "17"),
        (r"\fbox{3}", "3"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{x\right.}", r"\left\{x\right."),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\boxed{4} and \boxed{\frac{1}{", "4"),
        (r"\boxed{\frac{1}{", None),
        (r"\boxed{}", None),
        (r"\boxedname{5}", None),
        (r"\boxed", None),
        ("the answer is 5", None),
    ],
)
def test_boxed(text: str, answer: str | None) -> None:
    assert graders.get("boxed").extract(text) == answer


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        (r"\frac{1}{2}", r"\dfrac12", True),
        (r"\frac{1}{2}", "1/2", True),
        (r"\frac{1}{2}", "0.5", True),
        (r"\frac{1}{2}", "2", False),
        ("90", r"90^\circ", True),
        ("5", "x=5", True),
        ("10{,}000", "10,000", True),
        ("10000", "10,000", True),
        (r"2 \text{ euros}", "2", True),
        (r"\text{(C)}", "(C)", True),
        (r"\text{Evelyn}", r"\text{Briana}", False),
        (r"\sqrt{3}", r"\sqrt3", True),
        ("(x-1)(x+1)", "x^2-1", True),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})", True),
        ("(3, 4)", "(4, 3)", False),
        ("[0, 1)", "[0, 1]", False),
        (".5", "0.50", True),
        ("3", r"3\%", True),
        ("3", "-3", False),
        ("2", r"\frac{}{}", False),
        ("2", "9" * 400, False),
    ],
)
def test_boxed_grades(gold: str, answer: str, right: bool) -> None:
    assert graders.get("boxed").grade(gold, rf"\boxed{{{answer}}}") is right


def test_an_answer_that_explodes_is_wrong_in_time() -> None:
    started = time.perf_counter()
    assert graders.get("boxed").grade("5", r"\boxed{99999999!}") is False
    assert time.perf_counter() - started < 30


def test_boxed_works_outside_the_main_thread() -> None:
    results: list[bool | None] = []
    thread = threading.Thread(target=lambda: results.append(graders.get("boxed").grade("x+1", r"\boxed{1+x}")))
    thread.start()
    thread.join()
    assert results == [True]


YES_NO = ["Yes", "No"]


@pytest.mark.parametrize(
    ("output", "choices", "answer"),
    [
        ("Yes", YES_NO, "Yes"),
        (" yes.\nBecause", YES_NO, "Yes"),
        ("**NO!**", YES_NO, "No"),
        ("Maybe", YES_NO, None),
        ("Yes, he did", YES_NO, None),
        ("", YES_NO, None),
        ("(a)", ["(A)", "(B)"], "(A)"),
        ("] ]", ["] ]", "} }"], "] ]"),
        ("very   Positive!", None, "very positive"),
        ("  \n ", None, None),
    ],
)
def test_label(output: str, choices: list[str] | None, answer: str | None) -> None:
    assert graders.get("label", choices).extract(output) == answer


def test_label_grades() -> None:
    grader = graders.get("label", YES_NO)
    assert [grader.grade("Yes", output) for output in ("yes", "No.", "perhaps")] == [True, False, None]


def test_unknown_grader_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match="There are: last-number, boxed, label"):
        graders.get("guess")
