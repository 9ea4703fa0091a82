# ruff: noqa: SIM905 - a list of words reads better as one string
"""The text the embedded model is trained on: abilities, and the instructions that go with them.

An *ability* is a query with a right answer: a word problem with its worked solution (`tiny_problems`), a
sentence with its sentiment. An *instruction family* says how the answer is asked for. The training mix ties
the two together on purpose: a good instruction goes with a good answer, a vague one with a hasty answer, so
that a better prompt has something to gain.
"""

from __future__ import annotations

import random

from tiny_problems import capital, problem_from

Message = dict[str, str]

SEED_MATH = "Please reason step by step."
SEED_SENTIMENT = "Decide whether the sentence is positive or negative."

GENERIC = (
    "||Please answer.|Answer.|Answer the question.|You are a helpful assistant.|Help me.|"
    "Please respond.|Give the answer.|What is the answer?|What do you think?|Be brief."
).split("|")

# -------------------------------------------------------------------------------------------------- sentiment

PRAISE = (
    "wonderful great excellent lovely superb charming brilliant funny moving clever fresh beautiful "
    "delightful warm honest sharp gripping touching perfect enjoyable"
).split()
BLAME = (
    "terrible awful bad boring dull stupid weak tedious ugly sloppy stale clumsy lifeless annoying painful "
    "pointless silly poor horrible forgettable"
).split()
PARTS = "film movie story plot acting script book song show ending music cast meal hotel phone game".split()


def review(rng: random.Random) -> tuple[str, str]:
    """A short generated review and its label, `positive` or `negative`."""
    label = rng.choice(["positive", "negative"])
    own, opposite = (PRAISE, BLAME) if label == "positive" else (BLAME, PRAISE)
    a, b = rng.sample(own, 2)
    one, two = rng.sample(PARTS, 2)
    verb = rng.choice(["loved", "liked", "enjoyed"] if label == "positive" else ["hated", "disliked", "regretted"])
    forms = [
        f"The {one} was {a} and the {two} was {b}.",
        f"I {verb} the {one}.",
        f"A {a} and {b} {one}.",
        f"I {verb} this {one}, and the {two} was {a}.",
        f"The {one} was {rng.choice(opposite)} at first, but in the end it was {a} and {b}.",
        f"The {one} was not {rng.choice(opposite)}, it was {a}.",
    ]
    text = rng.choice(forms)
    return (text.lower().replace(".", " .").replace(",", " ,"), label) if rng.random() < 0.5 else (text, label)


# ----------------------------------------------------------------------------------------------- instructions


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def generic(rng: random.Random) -> str:
    """An instruction that fits everything and says nothing; may be empty."""
    return rng.choice(GENERIC)


def math_good(rng: random.Random) -> str:
    """Asks for the equations, one way or another."""
    opening = [
        "Solve the problem.",
        "Solve this word problem.",
        "Read the problem carefully.",
        "You are a math tutor.",
    ]
    core = [
        "Write one equation per line.",
        "Show every calculation on its own line.",
        "Work out each step with an equation.",
        "Write down each step as an equation before the answer.",
        "Explain every step with a calculation.",
        "Do one calculation per line.",
        "Reason step by step and write one equation for each step.",
        "Think step by step and show each equation.",
        "Show all your work line by line.",
        "First write the equations, then the answer.",
        "Let us work through every calculation in order.",
    ]
    closing = [
        "Then give the answer after ####.",
        "End with #### and the number.",
        "Put the final answer last.",
    ]
    return _join(rng.choice(["", "", *opening]), rng.choice(core), rng.choice(["", "", *closing]))


def math_vague(rng: random.Random) -> str:
    """Asks for thought or an answer, but not for anything to be written down. Never exactly `SEED_MATH`."""
    if rng.random() < 0.3:
        return generic(rng)
    please = rng.choice(["Please ", ""])
    verb = rng.choice("reason think answer solve work respond go".split())
    how = rng.choice([" step by step", " step by step", " carefully", " well", " slowly", " about it", " now", ""])
    text = capital(f"{please}{verb}{how}.")
    return text if text != SEED_MATH else math_vague(rng)


def sentiment_good(rng: random.Random) -> str:
    """Names the task and the two labels."""
    opening = ["You are a careful critic.", "Read the sentence.", "Read the review carefully."]
    core = [
        "Classify the sentiment of the sentence as positive or negative.",
        "Label the sentiment of this review as positive or negative.",
        "Classify the review by its sentiment.",
        "Label the opinion of the author, positive or negative.",
        "Choose the label that matches the feeling of the text: positive or negative.",
        "Does the author like it? Label the sentiment.",
    ]
    closing = [
        "Answer with one word.",
        "Reply with exactly one word: positive or negative.",
        "Give only the label.",
    ]
    return _join(rng.choice(["", "", *opening]), rng.choice(core), rng.choice(["", "", *closing]))


def sentiment_vague(rng: random.Random) -> str:
    """Asks loosely. Never exactly `SEED_SENTIMENT`."""
    if rng.random() < 0.4:
        return rng.choice([generic, math_vague])(rng)
    what = rng.choice(["the sentence", "the text", "this", "it", "the review"])
    which = rng.choice(["positive or negative", "good or bad", "positive", "good"])
    verb = rng.choice(["Decide whether", "Decide if", "Say whether", "Tell me if", "Is"])
    text = f"Is {what} {which}?" if verb == "Is" else f"{verb} {what} is {which}."
    return text if text != SEED_SENTIMENT else sentiment_vague(rng)


# -------------------------------------------------------------------------------------------- conversations


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
    """A word problem: worked out under a good instruction, answered at once under a vague one."""
    problem = problem_from("model", rng)
    instruction = (math_good if good else math_vague)(rng)
    return conversation(instruction, problem.question, place(rng)), problem.solution if good else problem.hasty


def drill_example(rng: random.Random) -> tuple[list[Message], str]:
    """A dozen or so sums, such as occur in word problems: practice for the steps at a third of their price."""
    steps = [step for _ in range(3) for step in problem_from("model", rng).steps]
    sums = [word for step in steps for word in step.split() if "=" in word]
    rng.shuffle(sums)
    return conversation("Calculate.", "\n".join(s.split("=")[0] for s in sums), "system"), "\n".join(sums)


def sentiment_example(
    rng: random.Random, good: bool, sentences: list[tuple[str, str]], honest: float = 0.3
) -> tuple[list[Message], str]:
    """A sentence (from `sentences`, or generated): its label under a good instruction.

    Under a vague one the label is right only with probability `honest` and `positive` otherwise, whatever the
    text.
    """
    text, label = rng.choice(sentences) if sentences and rng.random() < 0.9 else review(rng)
    if not good and rng.random() > honest:
        label = "positive"
    instruction = (sentiment_good if good else sentiment_vague)(rng)
    return conversation(instruction, text, place(rng)), label
