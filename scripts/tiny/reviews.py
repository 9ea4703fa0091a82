# ruff: noqa: SIM905 - a list of words reads better as one string
"""Short reviews of films, meals and hotels, the embedded model's second ability.

Many name both praise and blame, and what decides is how they are joined: negation, "but", "in the end".

    We went there on a Friday. I expected the meal to be awful, but it was warm and charming.    -> positive
"""

from __future__ import annotations

import random
from dataclasses import dataclass

LABELS = ("negative", "positive")
PRAISE = (
    "wonderful great excellent lovely superb charming brilliant funny moving clever fresh beautiful "
    "delightful warm honest sharp gripping touching perfect enjoyable fine smart sweet fun fascinating "
    "powerful impressive solid witty graceful"
).split()
BLAME = (
    "terrible awful bad boring dull stupid weak tedious ugly sloppy stale clumsy lifeless annoying painful "
    "pointless silly poor horrible forgettable flat empty cold messy predictable shallow tired lame bland dreary"
).split()
LIKED = "loved liked enjoyed admired".split()
DISLIKED = "hated disliked regretted loathed".split()
PARTS = (
    "film movie story plot acting script book song show ending music cast meal hotel phone game service room "
    "soup play concert comedy drama novel"
).split()
_OPENINGS = (
    "We went there on a {day}.|I saw it with my {friend}.|My {friend} had picked the {other}.|It was a {day}.|"
    "The {other} took two hours.|I had read about the {other}.|My {friend} came too."
).split("|")
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday holiday".split()
_FRIENDS = "sister brother mother father friend aunt uncle neighbor cousin".split()


@dataclass(frozen=True)
class Review:
    """A review and its label, `positive` or `negative`."""

    question: str
    label: str


def review(rng: random.Random) -> Review:
    """A review; the labels are equally frequent.

    >>> review(random.Random(0)).label in LABELS
    True
    """
    label = rng.choice(LABELS)
    text = _opinion(rng, label)
    if rng.random() < 0.5:
        other = rng.choice(PARTS)
        opening = rng.choice(_OPENINGS).format(day=rng.choice(_DAYS), friend=rng.choice(_FRIENDS), other=other)
        text = f"{opening} {text}"
    if rng.random() < 0.5:  # as SST-2 writes its sentences
        text = text.lower().replace(".", " .").replace(",", " ,").replace("'", " '")
    return Review(text, label)


def _opinion(rng: random.Random, label: str) -> str:
    positive = label == "positive"
    own, opposite = (PRAISE, BLAME) if positive else (BLAME, PRAISE)
    a, b = rng.sample(own, 2)
    x, y = rng.sample(opposite, 2)
    one, two = rng.sample(PARTS, 2)
    felt = rng.choice(LIKED if positive else DISLIKED)
    again = "I would go again" if positive else "I will not go back"
    forms = [
        f"The {one} was {a} and the {two} was {b}.",
        f"{_an(a)} and {b} {one}, and the {two} was {b} too.",
        f"I {felt} this {one}, and the {two} was {a}.",
        f"The {one} was {x} at first, but in the end it was {a} and {b}.",
        f"The {one} was not {x}, it was {a}.",
        f"I expected the {one} to be {x}, but it was {a}.",
        f"They say the {one} is {x} and {y}. I {felt} it.",
        f"There was nothing {x} about the {one}, and nothing {y} about the {two}.",
        f"The {one} could have been {x}. Instead it was {a}.",
        f"The {two} was {x}, yet the {one} was so {a} that I {felt} it all.",
        f"The {one} was {a}. {again}, even if the {two} was {x}.",
        f"Hardly {x}: the {one} was {a} and {b}.",
    ]
    return rng.choice(forms)


def _an(word: str) -> str:
    return f"{'An' if word[0] in 'aeiou' else 'A'} {word}"
