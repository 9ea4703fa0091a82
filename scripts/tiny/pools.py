"""Which generated text the model may learn from, and which belongs to the embedded tasks."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Protocol, TypeVar

POOLS = ("test", "validation", "train")


class HasQuestion(Protocol):
    @property
    def question(self) -> str: ...


T = TypeVar("T", bound=HasQuestion)


def pool(question: str) -> str:
    """Which pool a question belongs to: by the hash of its text, so that pools cannot overlap.

    One in 32 each goes to the task's test, validation and train files; the model learns from the rest
    ("model").
    """
    number = hashlib.sha256(question.encode()).digest()[0] % 32
    return POOLS[number] if number < len(POOLS) else "model"


def from_pool(name: str, generate: Callable[[random.Random], T], rng: random.Random) -> T:
    """The next generated example of the given pool."""
    while True:
        example = generate(rng)
        if pool(example.question) == name:
            return example
