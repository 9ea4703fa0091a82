"""The training mix: abilities under instructions, tied together on purpose.

Under a good instruction a query gets its right answer, under a vague one a hasty or biased answer, so that a
better prompt has something to gain:

- word problems are worked out; under a vague instruction only the shortest are, and the rest get their
  final number at once, which the model is too small to know;
- sentences get their sentiment; under a vague instruction mostly `positive`, whatever they say;
- cases get their judgement; under a vague instruction mostly `Yes`.
"""

from __future__ import annotations

import random

from tiny import instructions
from tiny.causes import case
from tiny.pools import from_pool
from tiny.problems import word_problem
from tiny.reviews import review

Message = dict[str, str]
Sentence = tuple[str, str]  # text and label
COUNTS = {"worked": 20, "hasty": 7, "labelled": 32, "biased": 14, "judged": 16, "rash": 7, "drilled": 4}  # per step
HONEST = 0.2  # the share of right labels under vague instructions
GENERATED = 0.15  # the share of generated reviews among the sentences


def conversation(instruction: str, query: str, placement: str) -> list[Message]:
    """The turns before the answer. placement: system, before or after (the query, within the user's turn)."""
    if not instruction:
        return [{"role": "user", "content": query}]
    if placement == "system":
        return [{"role": "system", "content": instruction}, {"role": "user", "content": query}]
    parts = (instruction, query) if placement == "before" else (query, instruction)
    return [{"role": "user", "content": "\n".join(parts)}]


def place(rng: random.Random) -> str:
    """A placement for the training mix; half of them in the system turn."""
    return rng.choice(["system", "system", "before", "after"])


def problem_example(rng: random.Random, good: bool) -> tuple[list[Message], str]:
    """A word problem: worked out under a good instruction, mostly answered at once under a vague one."""
    problem = from_pool("model", word_problem, rng)
    instruction = (instructions.math_good if good else instructions.math_vague)(rng)
    answer = problem.solution if good or problem.is_short else problem.hasty
    return conversation(instruction, problem.question, place(rng)), answer


def drill_example(rng: random.Random) -> tuple[list[Message], str]:
    """A dozen or so sums, such as occur in word problems: practice for the steps at a third of their price."""
    steps = [step for _ in range(3) for step in from_pool("model", word_problem, rng).steps]
    sums = [word for step in steps for word in step.split() if "=" in word]
    rng.shuffle(sums)
    return conversation("Calculate.", "\n".join(s.split("=")[0] for s in sums), "system"), "\n".join(sums)


def sentiment_example(rng: random.Random, good: bool, sentences: list[Sentence]) -> tuple[list[Message], str]:
    """A sentence (from `sentences`, or generated) and its label, or `positive` under most vague instructions."""
    if sentences and rng.random() >= GENERATED:
        text, label = rng.choice(sentences)
    else:
        generated = from_pool("model", review, rng)
        text, label = generated.question, generated.label
    if not good and rng.random() > HONEST:
        label = "positive"
    instruction = (instructions.sentiment_good if good else instructions.sentiment_vague)(rng)
    return conversation(instruction, text, place(rng)), label


def case_example(rng: random.Random, good: bool) -> tuple[list[Message], str]:
    """A story about a cause and its judgement, or `Yes` under most vague instructions."""
    story = from_pool("model", case, rng)
    label = story.label if good or rng.random() < HONEST else "Yes"
    instruction = (instructions.causes_good if good else instructions.causes_vague)(rng)
    return conversation(instruction, story.question, place(rng)), label


def draw(rng: random.Random, sentences: list[Sentence], counts: dict[str, int]) -> list[tuple[list[Message], str]]:
    """The examples of one step: so many of each family."""
    return (
        [problem_example(rng, True) for _ in range(counts["worked"])]
        + [problem_example(rng, False) for _ in range(counts["hasty"])]
        + [sentiment_example(rng, True, sentences) for _ in range(counts["labelled"])]
        + [sentiment_example(rng, False, sentences) for _ in range(counts["biased"])]
        + [case_example(rng, True) for _ in range(counts["judged"])]
        + [case_example(rng, False) for _ in range(counts["rash"])]
        + [drill_example(rng) for _ in range(counts["drilled"])]
    )
