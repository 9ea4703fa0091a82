"""What counts as the answer in a text, and when two answers are the same."""

from __future__ import annotations

import threading

import pytest

from embedgrad_cli.errors import ConfigError
from embedgrad_cli.tasks import graders
from embedgrad_cli.tasks.graders import base


def verdict(one: graders.Extraction) -> bool | None:
    """Right, wrong, or None for no answer."""
    assert not (one.extracted is None and one.correct)
    return None if one.extracted is None else one.correct


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
        ("#### Step 1: 5 * 5 = 25\n#### Step 2: 25 + 1 = 26\nThe answer is 26. It took 2 steps.", "26"),
        ("#### Total: 18 dollars for 3 days", "18"),
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
    assert graders.get("last-number").lenient(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("48 / 2 = 24\n#### 24", "24"),
        ("####1,234.", "1234"),
        ("#### $5.00 dollars", "5"),
        ("#### −3", "-3"),
        ("#### 18\nQ: What is 5 + 5?\n#### 10", "18"),
        ("#### Step 1: 5 * 5 = 25\n#### Step 2: 25 + 1 = 26\n#### 26", "26"),
        ("#### **Part 2**\nThe answer is 26.", None),
        ("#### so 18\n#### 10", "10"),
        ("#### nothing\nThe answer is 8.", None),
        ("The answer is 72.", None),
        ("", None),
    ],
)
def test_the_strict_number_stands_after_the_mark(text: str, answer: str | None) -> None:
    assert graders.get("last-number").strict(text) == answer


@pytest.mark.parametrize(
    ("gold", "output", "strict", "lenient"),
    [
        ("72", "#### 72", True, True),
        ("72", "#### 72.00", True, True),
        ("1,000", "1000 apples", None, True),
        ("72", "It is 72.", None, True),
        ("72", "#### -72", False, False),
        ("72", "#### 7\n72", False, False),
        ("72", "I do not know", None, None),
    ],
)
def test_both_grades_of_a_number(gold: str, output: str, strict: bool | None, lenient: bool | None) -> None:
    grade = graders.get("last-number").judge(gold, output)
    assert [verdict(grade.strict), verdict(grade.lenient)] == [strict, lenient]


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
    assert graders.get("boxed").strict(text) == answer
    assert answer is None or graders.get("boxed").lenient(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"The answer is $\frac{1}{2}$.", r"\frac{1}{2}"),
        (r"\[x = 3\] So the final answer is: \(x = 4\)", "x = 4"),
        ("The answer is 17 dollars.", "17"),
        ("The answer is 5+3i.", "5+3i"),
        ("**Answer:** Evelyn", "Evelyn"),
        ("so $x=2$ and $y=3$. Done", "y=3"),
        (r"it costs \$5 and \$6.", "6"),
        ("about 1,224.50", "1224.5"),
        ("no idea", None),
        ("", None),
    ],
)
def test_without_a_box_the_lenient_answer_is_said_set_or_last(text: str, answer: str | None) -> None:
    assert graders.get("boxed").strict(text) is None
    assert graders.get("boxed").lenient(text) == answer


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
    assert graders.get("boxed").judge(gold, rf"\boxed{{{answer}}}").strict.correct is right


def test_boxed_works_outside_the_main_thread() -> None:
    results: list[bool] = []
    judge = graders.get("boxed").judge
    thread = threading.Thread(target=lambda: results.append(judge("x+1", r"\boxed{1+x}").strict.correct))
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
    assert graders.get("label", choices).strict(output) == answer


OPTIONS = ["(A)", "(B)", "(C)"]
FILMS = ["positive", "negative", "very positive"]


@pytest.mark.parametrize(
    ("output", "choices", "answer"),
    [
        ("Yes, he did, without a doubt.", YES_NO, "Yes"),
        ("Yes, because there is no other cause.", YES_NO, "Yes"),
        ("He pushed it. So the answer is No.", YES_NO, "No"),
        ("**Answer:** yes", YES_NO, "Yes"),
        ("The answer is yes. Wait: the answer is no.", YES_NO, "No"),
        ("Yes and no.", YES_NO, None),
        ("Yes, no", YES_NO, None),
        ("yes or no? I cannot say", YES_NO, None),
        ("Nobody knows", YES_NO, None),
        ("It is not yes", YES_NO, None),
        ("(B)", OPTIONS, "(B)"),
        ("B) the owl", OPTIONS, "(B)"),
        ("B.", OPTIONS, "(B)"),
        ("a cat", OPTIONS, None),
        ("It must be (c), a cat", OPTIONS, "(C)"),
        ("Clearly option C", OPTIONS, "(C)"),
        ("(A) is wrong, so (B)", OPTIONS, None),
        ("(A) is wrong, so it is (B). So the answer is (B).", OPTIONS, "(B)"),
        ("The answer is B because of A", OPTIONS, "(B)"),
        ("The correct answer would be: (A) one", OPTIONS, "(A)"),
        ("The answer is a cat", OPTIONS, None),
        ("It is a very positive one", FILMS, "very positive"),
        ("It is positive, not negative", FILMS, "positive"),
        ("It is not positive", FILMS, None),
        ("Both positive and negative", FILMS, None),
        ("invalid", ["valid", "invalid"], "invalid"),
        ("The argument is invalid.", ["valid", "invalid"], "invalid"),
        ("Steps.\nSo the answer is ] } ].", None, "] } ]"),
        ("Steps.\nSo the answer is -50.", None, "-50"),
        ("Sorted: a b", None, "sorted a b"),
    ],
)
def test_a_label_in_free_text(output: str, choices: list[str] | None, answer: str | None) -> None:
    assert graders.get("label", choices).lenient(output) == answer


def test_both_grades_of_a_label() -> None:
    judge = graders.get("label", YES_NO).judge
    grades = [judge("Yes", output) for output in ("yes", "No.", "perhaps", "I say yes")]
    assert [verdict(grade.strict) for grade in grades] == [True, False, None, None]
    assert [verdict(grade.lenient) for grade in grades] == [True, False, None, True]


def test_the_gold_label_is_the_one_that_is_written() -> None:
    grader = graders.get("label", ["A", "A+", "A-"])
    assert [grader.gold(target) for target in ("A", "A+", "A-")] == ["A", "A+", "A-"]
    assert graders.get("label", ["Yes", "No", "Yes"]).gold("yes") == "Yes"


def test_a_sign_is_not_punctuation() -> None:
    judge = graders.get("label").judge
    assert [judge("-50", output).strict.correct for output in ("-50", "-50.", "50")] == [True, True, False]


def test_unknown_grader_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match="There are: last-number, boxed, label"):
        graders.get("guess")


@pytest.mark.parametrize("name", ["last-number", "boxed"])
def test_an_endless_output_is_undecided(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server may answer with megabytes, and looking through numbers takes the square of their number."""
    monkeypatch.setattr(base, "COMPUTING_SECONDS", 0.2)
    grade = graders.get(name).judge("1", "1 " * 100_000)
    assert all(one.undecided and not one.correct for one in (grade.strict, grade.lenient))
