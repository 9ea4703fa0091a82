# ruff: noqa: SIM905 - a list of words reads better as one string
"""Word problems with worked solutions, the embedded model's first ability.

A problem is told event by event, and each event adds its sentence to the question and its equation to the
solution:

    Tina owned 3 trays of 9 eggs. Kate brought 26 more eggs. How many eggs did she have in the end?
    The trays held 3*9=27 eggs.
    Now she had 27+26=53 eggs.
    #### 53
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

LARGEST = 100  # no number in a problem or in its solution exceeds this

_HE = "Tom Ben Sam Max Leo Omar Ivan Luis Jack Paul Ravi Hugo Dan Carl Finn Noah Adam Eric Kofi Jon"
_SHE = "Anna Mia Lucy Emma Nina Sara Rosa Kate Ella Jane Lena Maya Zoe Amy Ruth Vera Tina Aisha Julia Mei"
HE, SHE = _HE.split(), _SHE.split()
THINGS = (
    "apples pears plums lemons eggs cookies cakes candies nuts marbles stamps coins cards books pens pencils "
    "stickers buttons beads shells stones flowers roses balloons toys dolls kites tickets cups plates "
    "bottles bricks boards nails ribbons photos magnets badges oranges peaches"
).split()
HOLDERS = "boxes bags baskets packs jars crates bowls trays".split()


@dataclass(frozen=True)
class Problem:
    """A word problem: the question, one sentence with an equation per step, and the final number."""

    question: str
    steps: tuple[str, ...]
    answer: int

    @property
    def solution(self) -> str:
        """The worked answer in the style of GSM8K: a line per step, then `#### N`."""
        return "\n".join([*self.steps, self.hasty])

    @property
    def is_short(self) -> bool:
        """Two sentences, two steps: the only kind that the model works out unasked."""
        return len(self.steps) == 2 and self.question.count(".") == 2

    @property
    def hasty(self) -> str:
        """The answer alone."""
        return f"#### {self.answer}"


@dataclass
class Story:
    """A problem being told: who owns how many of what, the sentences and the equations so far."""

    rng: random.Random
    who: str
    he: str
    thing: str
    value: int = 0
    before: int | None = None  # what the previous person had, while it still matters

    def __post_init__(self) -> None:
        self.sentences: list[str] = []
        self.steps: list[str] = []

    def other(self) -> tuple[str, str]:
        """A person who is not the owner, with the pronoun."""
        name = self.rng.choice([n for n in HE + SHE if n != self.who])
        return name, "he" if name in HE else "she"

    def tell(self, *choices: str) -> None:
        self.sentences.append(self.rng.choice(choices))

    def step(self, left: int, sign: str, right: int, line: str) -> int:
        """Add a line with the equation in place of `{}`; return its result."""
        result = {"+": left + right, "-": left - right, "*": left * right, "/": left // right}[sign]
        self.steps.append(line.format(f"{left}{sign}{right}={result}"))
        return result

    def has(self, left: int, sign: str, right: int) -> None:
        """The line that says what the owner has after an event, and the new value."""
        words = {"+": f"Then {self.he} had", "-": "That left", "*": f"Now {self.he} had", "/": "One part was"}
        self.value = self.step(left, sign, right, f"{words[sign]} {{}} {self.thing}.")
        self.before = None


def capital(word: str) -> str:
    """The word with its first letter in upper case."""
    return word[0].upper() + word[1:]


def _start(s: Story, room: int) -> None:
    kind = s.rng.choice(["plain", "plain", "product", "sum"]) if room > 1 else "plain"
    if kind == "plain":
        s.value = s.rng.randint(5, 40)
        s.tell(f"{s.who} had {s.value} {s.thing}.", f"{s.who} started with {s.value} {s.thing}.")
    elif kind == "product":
        k, m, holder = s.rng.randint(2, 9), s.rng.randint(2, 10), s.rng.choice(HOLDERS)
        s.tell(
            f"{s.who} had {k} {holder} with {m} {s.thing} in each.",
            f"{s.who} owned {k} {holder} of {m} {s.thing}.",
        )
        s.value = s.step(k, "*", m, f"{s.who} had {{}} {s.thing}.")
    else:
        a, b = s.rng.randint(3, 30), s.rng.randint(3, 30)
        s.tell(
            f"{s.who} had {a} red {s.thing} and {b} blue {s.thing}.",
            f"{s.who} made {a} {s.thing} on Monday and {b} on Tuesday.",
        )
        s.value = s.step(a, "+", b, f"In all that was {{}} {s.thing}.")


def _gain(s: Story) -> bool:
    n = s.rng.randint(2, 20)
    if s.value + n > LARGEST:
        return False
    he, (name, _) = capital(s.he), s.other()
    s.tell(f"{he} bought {n} more.", f"{he} found {n} more {s.thing}.", f"{name} brought {n} more {s.thing}.")
    s.has(s.value, "+", n)
    return True


def _lose(s: Story) -> bool:
    if s.value < 6:
        return False
    n, he, (name, _) = s.rng.randint(2, min(s.value - 2, 30)), capital(s.he), s.other()
    s.tell(f"{he} gave {n} to {name}.", f"{he} lost {n} of them.", f"Then {s.he} sold {n} {s.thing}.")
    s.has(s.value, "-", n)
    return True


def _gain_packs(s: Story) -> bool:
    k, m, holder = s.rng.randint(2, 9), s.rng.randint(2, 9), s.rng.choice(HOLDERS)
    if s.value + k * m > LARGEST:
        return False
    he = capital(s.he)
    s.tell(f"{he} bought {k} {holder} of {m} {s.thing}.", f"{he} got {k} {holder} with {m} {s.thing} in each.")
    s.has(s.value, "+", s.step(k, "*", m, f"The {holder} held {{}} {s.thing}."))
    return True


def _lose_packs(s: Story) -> bool:
    k, m = s.rng.randint(2, 9), s.rng.randint(2, 9)
    if s.value - k * m < 2:
        return False
    he = capital(s.he)
    s.tell(f"{he} gave {m} {s.thing} to each of {k} friends.", f"{he} used {m} a day for {k} days.")
    s.has(s.value, "-", s.step(m, "*", k, f"That took {{}} {s.thing}."))
    return True


def _share(s: Story) -> bool:
    divisors = [d for d in (2, 3, 4, 5) if s.value % d == 0 and s.value // d > 1]
    if not divisors:
        return False
    d, he = s.rng.choice(divisors), capital(s.he)
    if d == 2:
        s.tell(f"{he} kept only half of the {s.thing}.", f"{he} gave half of them away.")
    else:
        s.tell(
            f"{he} made {d} equal piles and kept one pile.",
            f"{he} split them into {d} parts and kept one part.",
        )
    s.has(s.value, "/", d)
    return True


def _double(s: Story) -> bool:
    k = s.rng.choice([2, 2, 3])
    if s.value * k > LARGEST:
        return False
    word = {2: "doubled", 3: "tripled"}[k]
    s.tell(f"Then the number of {s.thing} {word}.", f"Soon the pile of {s.thing} {word}.")
    s.has(s.value, "*", k)
    return True


def _compare(s: Story) -> bool:
    """Pass the story on to another person, whose number is told relative to the owner's."""
    kind, (name, he) = s.rng.choice(["times", "more", "fewer"]), s.other()
    n = s.rng.randint(2, 5) if kind == "times" else s.rng.randint(2, 20)
    result = {"times": s.value * n, "more": s.value + n, "fewer": s.value - n}[kind]
    if not 2 <= result <= LARGEST:
        return False
    owner = "them" if s.who == "They" else s.who
    words = f"{n} times as many" if kind == "times" else f"{n} {kind}"
    s.tell(f"{name} had {words} {s.thing} {'as' if kind == 'times' else 'than'} {owner}.")
    before = s.value
    sign = {"times": "*", "more": "+", "fewer": "-"}[kind]
    s.value = s.step(before, sign, n, f"{name} had {{}} {s.thing}.")
    s.who, s.he, s.before = name, he, before
    return True


def _together(s: Story) -> bool:
    if s.before is None or s.before + s.value > LARGEST:
        return False
    s.tell("They put them all together.", f"They put their {s.thing} together.")
    s.who, s.he = "They", "they"
    s.has(s.before, "+", s.value)
    return True


def _end(s: Story, room: int) -> str:
    """The question; with room for one more step sometimes a sale or a division."""
    kind = s.rng.choice(["price", "boxes", "plain"]) if room else "plain"
    he = capital(s.he)
    if kind == "price" and s.value <= LARGEST // 2:
        k = s.rng.randint(2, min(9, LARGEST // s.value))
        s.tell(f"{he} sold all the {s.thing} for {k} dollars each.", f"Each was sold for {k} dollars.")
        s.value = s.step(s.value, "*", k, f"{he} got {{}} dollars.")
        return s.rng.choice([f"How many dollars did {s.he} get?", f"How much money did {s.he} make?"])
    divisors = [d for d in range(2, 10) if s.value % d == 0 and s.value // d > 1]
    if kind == "boxes" and divisors:
        d, holder = s.rng.choice(divisors), s.rng.choice(HOLDERS)
        s.tell(f"{he} put the {s.thing} equally into {d} {holder}.")
        s.value = s.step(s.value, "/", d, f"Each held {{}} {s.thing}.")
        return f"How many {s.thing} were in each?"
    return s.rng.choice([f"How many {s.thing} did {s.he} have?", f"How many {s.thing} did {s.he} have in the end?"])


EVENTS: dict[Callable[[Story], bool], int] = {
    _gain: 1, _lose: 1, _gain_packs: 2, _lose_packs: 2, _share: 1, _double: 1, _compare: 1, _together: 1
}  # fmt: skip


def word_problem(rng: random.Random) -> Problem:
    """A problem of 2 to 6 steps over the four operations.

    >>> word_problem(random.Random(0)).solution.splitlines()[-1].startswith("#### ")
    True
    """
    while len((problem := _tell_problem(rng, rng.randint(2, 6))).steps) < 2:
        pass  # the last step found no number that fits
    return problem


def _tell_problem(rng: random.Random, target: int) -> Problem:
    who = rng.choice(HE + SHE)
    s = Story(rng, who, "he" if who in HE else "she", rng.choice(THINGS))
    _start(s, target)
    while len(s.steps) < target - 1:
        event = _together if s.before is not None and rng.random() < 0.5 else rng.choice(list(EVENTS))
        if EVENTS[event] <= target - len(s.steps):
            event(s)
    question = _end(s, target - len(s.steps))
    return Problem(" ".join([*s.sentences, question]), tuple(s.steps), s.value)
