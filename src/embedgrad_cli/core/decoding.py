"""Scoring of labels and greedy generation, on the trunk's keys and values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from embedgrad_cli.core.encoding import Example
from embedgrad_cli.core.forward import Forward, Past
from embedgrad_cli.core.soft_prompt import SoftPrompt

Progress = Callable[[int], None]


@torch.no_grad()
def score_choices(
    forward: Forward,
    examples: Sequence[Example],
    choices: Sequence[tuple[int, ...]],
    prompt: SoftPrompt,
    batch_size: int,
    progress: Progress = lambda done: None,
) -> list[list[float]]:
    """Log-likelihood of every choice (the sum over its tokens) after every example: `[examples][choices]`.

    The query is computed once. Its last place predicts every choice's first token; only what choices hold beyond that
    is computed per choice.
    """
    scores: list[list[float]] = [[] for _ in examples]
    if not forward.shares_trunk:
        return [_plain_scores(forward, example, choices, prompt) for example in examples]
    trunk = forward.compute_trunk(prompt)
    for rows in batches_by_length(forward, examples, batch_size):
        logits, past = _prefill(forward, [examples[i] for i in rows], prompt, trunk)
        first = logits.float().log_softmax(-1)
        columns = []
        for choice in choices:
            column = first[:, choice[0]]
            if len(choice) > 1:
                column = column + _score_rest(forward, choice, past, prompt)
            columns.append(column)
        for row, values in zip(rows, torch.stack(columns, dim=1).tolist(), strict=True):
            scores[row] = values
        progress(len(rows))
    return scores


@torch.no_grad()
def generate(
    forward: Forward,
    examples: Sequence[Example],
    prompt: SoftPrompt,
    max_new_tokens: int,
    batch_size: int,
    progress: Progress = lambda done: None,
) -> list[list[int]]:
    """Greedy answers as token ids, without the token that ended them.

    An answer ends at one of the model's end tokens, after `max_new_tokens`, or where the model's context does.
    """
    answers: list[list[int]] = [[] for _ in examples]
    if not forward.shares_trunk:
        return [_plain_generate(forward, example, prompt, max_new_tokens) for example in examples]
    trunk = forward.compute_trunk(prompt)
    for rows in batches_by_length(forward, examples, batch_size):
        batch = [examples[i] for i in rows]
        for row, answer in zip(rows, _generate_batch(forward, batch, prompt, trunk, max_new_tokens), strict=True):
            answers[row] = answer
        progress(len(rows))
    return answers


def batches_by_length(forward: Forward, examples: Sequence[Example], batch_size: int) -> Iterator[list[int]]:
    """Row numbers in batches of similar length; of one length where a gap would change the result."""
    order = sorted(range(len(examples)), key=lambda i: (len(examples[i].tokens), i))
    batch: list[int] = []
    for row in order:
        lengths = [len(examples[i].tokens) for i in (*batch[:1], row)]
        if batch and (len(batch) == batch_size or not forward.allows_gaps(lengths)):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _prefill(forward: Forward, batch: Sequence[Example], prompt: SoftPrompt, trunk: Past) -> tuple[Tensor, Past]:
    """Compute the branches. Returns: logits of the last place `[batch, vocabulary]`, and the past.

    Padding stands on the left, between trunk and branch, so that answers grow at the end of every row.
    """
    branches = [example.tokens[len(forward.trunk) :] for example in batch]
    tokens, mask = forward.pad(branches, left=True)
    width = tokens.shape[1]
    last = [row * width + width - 1 for row in range(len(batch))]
    return forward.run(tokens, mask, trunk.expand(len(batch)), prompt, last)


def _score_rest(forward: Forward, choice: tuple[int, ...], past: Past, prompt: SoftPrompt) -> Tensor:
    """Log-likelihood of a choice's tokens after the first, `[batch]`."""
    rows, length = len(past.mask), len(choice) - 1
    tokens = torch.tensor(choice[:-1], device=past.mask.device).expand(rows, -1)
    everywhere = list(range(rows * length))
    logits, _ = forward.run(tokens, torch.ones_like(tokens, dtype=torch.bool), past, prompt, everywhere)
    targets = torch.tensor(choice[1:], device=logits.device).repeat(rows)
    likelihoods = logits.float().log_softmax(-1).gather(1, targets[:, None])
    return likelihoods.view(rows, length).sum(dim=1)


def _generate_batch(
    forward: Forward, batch: Sequence[Example], prompt: SoftPrompt, trunk: Past, max_new_tokens: int
) -> list[list[int]]:
    model = forward.model
    answers: list[list[int]] = [[] for _ in batch]
    limits = [max_new_tokens] * len(batch)
    if model.max_length is not None:
        limits = [min(max_new_tokens, model.max_length - len(example.tokens)) for example in batch]
    active = [i for i, limit in enumerate(limits) if limit > 0]  # rows still growing, in the order of `past`
    if not active:
        return answers
    logits, past = _prefill(forward, [batch[i] for i in active], prompt, trunk)
    while True:
        chosen = logits.argmax(dim=-1)
        going = []
        for place, (row, token) in enumerate(zip(active, chosen.tolist(), strict=True)):
            if token in model.end_ids:
                continue
            answers[row].append(token)
            if len(answers[row]) < limits[row]:
                going.append(place)
        if not going:
            return answers
        if len(going) < len(active):
            kept = torch.tensor(going, device=model.device)
            past, chosen, active = past.select(kept), chosen[kept], [active[i] for i in going]
        mask = torch.ones(len(active), 1, dtype=torch.bool, device=model.device)
        logits, past = forward.run(chosen[:, None], mask, past, prompt, list(range(len(active))))


def _plain_scores(
    forward: Forward, example: Example, choices: Sequence[tuple[int, ...]], prompt: SoftPrompt
) -> list[float]:
    return [-forward.plain_losses([replace(example, target=c)], prompt).sum().item() for c in choices]


def _plain_generate(forward: Forward, example: Example, prompt: SoftPrompt, max_new_tokens: int) -> list[int]:
    """Let the model generate by itself, one example at a time: nothing is known of its cache, padding included."""
    tokens, mask = forward.pad([example.tokens])
    model = forward.model
    output = model.network.generate(
        inputs_embeds=forward.embed(tokens, prompt),
        attention_mask=mask.long(),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=sorted(model.end_ids),
        pad_token_id=min(model.end_ids),
    )
    answer = output[0].tolist()
    return answer[: next((i for i, token in enumerate(answer) if token in model.end_ids), len(answer))]
