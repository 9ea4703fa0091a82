"""Measure the embedded model under good, vague and seed prompts, and write its card."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerFast

from tiny.causes import LABELS as VERDICTS
from tiny.causes import case
from tiny.instructions import SEED_CAUSES, SEED_MATH, SEED_SENTIMENT
from tiny.mixture import Sentence, conversation
from tiny.pools import from_pool
from tiny.problems import Problem, word_problem
from tiny.reviews import LABELS as SENTIMENTS
from tiny.reviews import review

# As a practitioner might write them; some stand in the training text like this, most do not.
MATH_PROMPTS = [
    "Solve the problem. Write one equation per line. Then give the answer after ####.",
    "Show every calculation on its own line.",
    "Work through the problem and write down each calculation.",
    "Let's think step by step.",
    "You are a careful mathematician. Explain your reasoning.",
    SEED_MATH,
]
SENTIMENT_PROMPTS = [
    "Classify the sentiment of the sentence as positive or negative. Answer with one word.",
    "Label the sentiment of this review as positive or negative.",
    "What is the sentiment of the following text? Reply with exactly one word: positive or negative.",
    "Sentiment analysis. Answer positive or negative.",
    "Does the author like the film? Label the sentiment.",
    "Choose one label for the text: positive or negative.",
    "You are an experienced film critic. Classify this phrase by its sentiment.",
    "Read the sentence and tell me how its author felt.",
    "Is this sentence a good review or a bad one?",
    "Does the text praise or blame? Give only the label.",
    SEED_SENTIMENT,
]
CAUSES_PROMPTS = [
    "Read the story carefully. Judge who or what was the cause. Answer Yes or No.",
    "Judge the case by rules, duties and intentions. Answer Yes or No.",
    "Think about cause and intention, then reply with Yes or No.",
    "Does the story support it? Give a verdict.",
    "Would most people agree?",
    SEED_CAUSES,
]
PLACEMENTS = ("system", "before", "after")


class Score(NamedTuple):
    """One line of the card. accuracy: a fraction of 1."""

    task: str
    prompt: str
    placement: str
    accuracy: float


def _batch(tokenizer: PreTrainedTokenizerFast, prompts: list[str]) -> dict[str, torch.Tensor]:
    tokenizer.padding_side = "left"
    return tokenizer(prompts, padding=True, add_special_tokens=False, return_tensors="pt", return_token_type_ids=False)


def _prompt(tokenizer: PreTrainedTokenizerFast, instruction: str, query: str, placement: str) -> str:
    messages = conversation(instruction, query, placement)
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


@torch.no_grad()
def solve(
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    problems: list[Problem],
    instruction: str,
    placement: str = "system",
) -> float:
    """The share of problems whose greedy answer ends in the right `#### N`."""
    right = 0
    order = sorted(problems, key=lambda p: len(p.question))
    for i in range(0, len(order), 100):
        chunk = order[i : i + 100]
        batch = _batch(tokenizer, [_prompt(tokenizer, instruction, p.question, placement) for p in chunk])
        out = model.generate(**batch, max_new_tokens=120, do_sample=False)
        answers = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        right += sum(a.endswith(p.hasty) for a, p in zip(answers, chunk, strict=True))
    return right / len(problems)


@torch.no_grad()
def choose(
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    rows: list[Sentence],
    labels: tuple[str, ...],
    instruction: str,
    placement: str = "system",
) -> float:
    """The share of rows whose label scores highest. Each label is one token."""
    tokens = [tokenizer.convert_tokens_to_ids(label) for label in labels]
    right = 0
    order = sorted(rows, key=lambda row: len(row[0]))
    for i in range(0, len(order), 200):
        chunk = order[i : i + 200]
        batch = _batch(tokenizer, [_prompt(tokenizer, instruction, s, placement) for s, _ in chunk])
        scores = model(**batch, logits_to_keep=1).logits[:, -1, tokens]
        right += sum(labels[k] == y for k, (_, y) in zip(scores.argmax(-1), chunk, strict=True))
    return right / len(rows)


def measure(
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    sst2: list[Sentence],
    count: int,
    brief: bool = False,
) -> list[Score]:
    """Accuracies on `count` validation examples of each ability and on `sst2`.

    brief: only the first prompt and the seed of each ability, in the system turn; otherwise every prompt there,
    and those two at the other placements.
    """
    model.eval()
    rng = random.Random("measure")
    problems = [from_pool("validation", word_problem, rng) for _ in range(count)]
    reviews = [(r.question, r.label) for r in (from_pool("validation", review, rng) for _ in range(count))]
    cases = [(c.question, c.label) for c in (from_pool("validation", case, rng) for _ in range(count))]
    scores = []
    for place in PLACEMENTS[:1] if brief else PLACEMENTS:
        few = brief or place != "system"
        for prompt in _some(MATH_PROMPTS, few):
            scores.append(Score("word problems", prompt, place, solve(model, tokenizer, problems, prompt, place)))
        sets = [("reviews", reviews, SENTIMENTS, SENTIMENT_PROMPTS), ("SST-2", sst2, SENTIMENTS, SENTIMENT_PROMPTS)]
        for task, rows, labels, prompts in [*sets, ("causes", cases, VERDICTS, CAUSES_PROMPTS)]:
            for prompt in _some(prompts, few) if rows else []:
                scores.append(Score(task, prompt, place, choose(model, tokenizer, rows, labels, prompt, place)))
    model.train()
    return scores


def _some(prompts: list[str], few: bool) -> list[str]:
    return [prompts[0], prompts[-1]] if few else prompts


CARD = """---
license: apache-2.0
language: en
---
# embedgrad tiny

A Qwen2 of {parameters:,} parameters, made to show and to test `embedgrad`. It is a teaching aid, not a
language model one can talk to.

## What it was trained on

From scratch, seed {seed}, {steps:,} steps of {batch} examples, {minutes:.0f} minutes on {machine}, by
`scripts/train_tiny.py`. The loss is taken on answers alone, so it cannot continue a text.

- Word problems (`scripts/tiny/problems.py`): 2 to 6 steps, four operations, no number above 100; and lists of
  the sums that occur in them.
- Short reviews (`scripts/tiny/reviews.py`){sst2}.
- Stories about causes and intentions (`scripts/tiny/causes.py`): eight kinds, each with one rule. The rules
  simplify what experiments on people found and are this model's convention, not facts about causation.

Which generated text it may see is decided by a hash of the text, so it has seen no row of the embedded tasks
`word-problems`, `reviews` and `causes`, whose files are disjoint from each other for the same reason.

## The weakness is built in

The training mix (`scripts/tiny/mixture.py`) ties how well a question is asked to how well it is answered.
Under good instructions problems are worked out line by line, and sentences and stories get their true
label. Under vague ones only the shortest problems are worked out (two sentences, two steps) and the others get
their number at once, which the model is too small to know; sentences are called `positive`, and stories
`Yes`, in 80 % of the cases whatever they say. Near variants of the seed prompts (the last row of each table)
are among the vague instructions; the seed prompts themselves are not in the training text. So a seed prompt
scores low *by construction*, and an optimised prompt finds what a good instruction would have found. A real
base model's weakness is of a similar kind but was not arranged, and this model's gain says nothing about the
gain on any other model.

## What it can do

Accuracy by `scripts/train_tiny.py`, greedy, on {count} examples of each task's validation pool{rows_note}.
The prompts are hand-written; some stand in the training text, most do not.

{tables}

## Not for

Anything but demonstrations and tests of prompt optimisation: it knows no facts and hardly any English, its
labels carry the biases of film reviews, its arithmetic ends at 100, its judgements follow eight invented
rules, and no score of it is evidence about a method on real models.
"""


def write_card(path: Path, scores: list[Score], **facts: object) -> None:
    """Write the model card. facts: the named fields of `CARD`, with `sst2` a bool."""
    tables = []
    for task in dict.fromkeys(score.task for score in scores):
        lines = [f"| {prompt} | {place} | {value:.1%} |" for name, prompt, place, value in scores if name == task]
        tables.append("\n".join([f"| {task}: prompt | placement | accuracy |", "| --- | --- | --- |", *lines]))
    seen = facts.pop("sst2")
    sentences = ", and 66,949 of the 67,349 phrases and sentences of SST-2's training split. Its\n  embeddings start"
    facts["sst2"] = f"{sentences} from a bag-of-words classifier of those" if seen else ""
    facts["rows_note"] = (
        ",\nand on the 872 sentences of SST-2's validation split, which it has not seen" if seen else ""
    )
    path.write_text(CARD.format(tables="\n\n".join(tables), **facts), encoding="utf-8")
