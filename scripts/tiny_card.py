"""Measure the embedded model under good, vague and seed prompts, and write its card."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

import tiny_text as text
from tiny_problems import Problem, problem_from

GOOD_MATH = "Solve the problem. Write one equation per line. Then give the answer after ####."
GOOD_SENTIMENT = "Classify the sentiment of the sentence as positive or negative. Answer with one word."
PLACEMENTS = ("system", "before", "after")


def _batch(tokenizer: PreTrainedTokenizerFast, prompts: list[str]) -> dict[str, torch.Tensor]:
    tokenizer.padding_side = "left"
    return tokenizer(prompts, padding=True, add_special_tokens=False, return_tensors="pt", return_token_type_ids=False)


def _prompt(tokenizer: PreTrainedTokenizerFast, instruction: str, query: str, placement: str) -> str:
    messages = text.conversation(instruction, query, placement)
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


@torch.no_grad()
def word_problems(
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
def sentiment(
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    rows: list[tuple[str, str]],
    instruction: str,
    placement: str = "system",
) -> float:
    """The share of sentences whose label scores higher than the other one. Both labels are one token."""
    labels = [tokenizer.convert_tokens_to_ids(label) for label in ("negative", "positive")]
    right = 0
    order = sorted(rows, key=lambda row: len(row[0]))
    for i in range(0, len(order), 200):
        chunk = order[i : i + 200]
        batch = _batch(tokenizer, [_prompt(tokenizer, instruction, s, placement) for s, _ in chunk])
        scores = model(**batch, logits_to_keep=1).logits[:, -1, labels]
        right += sum(("negative", "positive")[k] == y for k, (_, y) in zip(scores.argmax(-1), chunk, strict=True))
    return right / len(rows)


def measure(
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    sentences: dict[str, list[tuple[str, str]]],
    count: int,
    placements: tuple[str, ...] = PLACEMENTS,
) -> list[tuple[str, str, str, float]]:
    """Rows (task, prompt, placement, accuracy); sentences maps a name of a sentiment set to its rows."""
    model.eval()
    rng = random.Random("measure")
    problems = [problem_from("validation", rng) for _ in range(count)]
    rows = []
    for place in placements:
        for prompt in (GOOD_MATH, text.SEED_MATH):
            rows.append(("word problems", prompt, place, word_problems(model, tokenizer, problems, prompt, place)))
        for name, pairs in sentences.items():
            for prompt in (GOOD_SENTIMENT, text.SEED_SENTIMENT):
                rows.append((name, prompt, place, sentiment(model, tokenizer, pairs, prompt, place)))
    model.train()
    return rows


CARD = """---
license: apache-2.0
language: en
---
# embedgrad tiny

A Qwen2 of {parameters:,} parameters, made to show and to test `embedgrad`. It is a teaching aid, not a
language model one can talk to.

## What it was trained on

From scratch, seed {seed}, {steps:,} steps of {batch} examples, {minutes:.0f} minutes on 2 CPU cores, by
`scripts/train_tiny.py`. The loss is taken on answers alone, so it cannot continue a text.

- Word problems that `scripts/tiny_text.py` generates: 2 to 6 steps, four operations, no number above 100.
  Which problems it may see is decided by a hash of the question, so it has seen none of
  `assets/word-problems`, whose files are disjoint from each other for the same reason.
- Lists of the sums that occur in such problems.
- Short generated reviews{sst2}.

## The weakness is built in

The training mix ties how well a question is asked to how well it is answered. Under good instructions ("Write
one equation per line.") problems are worked out line by line, and sentences get their true label. Under vague
ones the number comes at once, which the model is too small to get right, and the label is `positive` in 70 %
of the cases whatever the sentence, and the true one in the rest. Near variants of the seed prompts below are
among the vague instructions; the seed prompts themselves are not in the training text. So a seed prompt
scores low *by construction*, and an optimised prompt finds what a good instruction would have found. A real
base model's weakness is of a similar kind but was not arranged, and this model's gain says nothing about the
gain on any other model.

## What it can do

Accuracy, greedy, {count} word problems{rows_note}:

| task | prompt | placement | accuracy |
| --- | --- | --- | --- |
{table}

## Not for

Anything but demonstrations and tests of prompt optimisation: it knows no facts and hardly any English, its
labels carry the biases of film reviews, its arithmetic ends at 100, and no score of it is evidence about a
method on real models.
"""


def write_card(path: Path, rows: list[tuple[str, str, str, float]], **facts: object) -> None:
    """Write the model card. facts: the named fields of `CARD`, with `sst2` a bool."""
    table = "\n".join(f"| {task} | {prompt} | {place} | {value:.1%} |" for task, prompt, place, value in rows)
    seen = facts.pop("sst2")
    sentences = ", and 66,949 of the 67,349 phrases and sentences of SST-2's training split. Its\n  embeddings start"
    facts["sst2"] = f"{sentences} from a bag-of-words classifier of those" if seen else ""
    facts["rows_note"] = ", and the 872 sentences of SST-2's validation split, which it has not seen" if seen else ""
    path.write_text(CARD.format(table=table, **facts), encoding="utf-8")
