# ruff: noqa: SIM905 - a list of words reads better as one string
"""How a task is asked for: for each ability a family of good instructions and one of vague ones.

The vague families hold near variants of the seed prompts, and never the seed prompts themselves.
"""

from __future__ import annotations

import random

from tiny.problems import capital

SEED_MATH = "Please reason step by step."
SEED_SENTIMENT = "Decide whether the sentence is positive or negative."
SEED_CAUSES = "Answer the question about causation as a typical person would."

GENERIC = (
    "||Please answer.|Answer.|Answer the question.|You are a helpful assistant.|Help me.|"
    "Please respond.|Give the answer.|What is the answer?|What do you think?|Be brief."
).split("|")


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
    what = rng.choice(["the sentence", "the sentence", "this sentence", "the text", "this", "it", "the review"])
    which = rng.choice(["positive or negative", "positive or negative", "good or bad", "positive", "good"])
    verb = rng.choice(
        ["Decide whether", "Decide whether", "Decide if", "Determine whether", "Say whether", "Tell me if"]
    )
    text = rng.choice(
        [f"{verb} {what} is {which}.", f"Please {verb.lower()} {what} is {which}.", f"Is {what} {which}?"]
    )
    return text if text != SEED_SENTIMENT else sentiment_vague(rng)


def causes_good(rng: random.Random) -> str:
    """Asks for a judgement of the case."""
    opening = ["Read the story.", "Read the story carefully.", "You are a careful judge."]
    core = [
        "Judge who or what was the cause.",
        "Judge what caused what and what was intended.",
        "Judge the case by rules, duties and intentions.",
        "Weigh what each person did, then judge the case.",
        "Find out from the story what is true.",
        "Judge by what the story says.",
        "Think about cause and intention, and give a verdict.",
    ]
    closing = ["Answer Yes or No.", "Reply with Yes or No.", "Give only the verdict: Yes or No."]
    return _join(rng.choice(["", "", *opening]), rng.choice(core), rng.choice(["", *closing]))


def causes_vague(rng: random.Random) -> str:
    """Asks for an answer like anyone's. Never exactly `SEED_CAUSES`."""
    if rng.random() < 0.4:
        return rng.choice([generic, math_vague])(rng)
    what = rng.choice(
        ["the question", "this question", "it", "the question about the story", "the question about causation"]
    )
    how = rng.choice([" as a typical person would", " as a person would", " as most people would", " like anyone", ""])
    text = rng.choice([f"Answer {what}{how}.", f"Please answer {what}{how}.", "How would a typical person answer?"])
    return text if text != SEED_CAUSES else causes_vague(rng)
