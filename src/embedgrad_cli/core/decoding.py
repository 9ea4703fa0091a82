"""Scoring of labels and generation of answers, on the trunk's keys and values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from embedgrad_cli.core.encoding import Example
from embedgrad_cli.core.forward import Forward, Past
from embedgrad_cli.core.sampling import Sampling
from embedgrad_cli.core.soft_prompt import SoftPrompt

GREEDY = Sampling()


class Decoder:
    """Answers batches of examples with one prompt; the trunk is computed with the first batch that needs it."""

    def __init__(self, forward: Forward, prompt: SoftPrompt) -> None:
        self.forward, self.prompt = forward, prompt

    @cached_property
    def trunk(self) -> Past:
        return self.forward.compute_trunk(self.prompt)

    @torch.no_grad()
    def score_choices(self, batch: Sequence[Example], choices: Sequence[tuple[int, ...]]) -> list[list[float]]:
        """Log-likelihood of every choice (the sum over its tokens) after every example: `[examples][choices]`.

        The query is computed once. Its last place predicts every choice's first token; only what choices hold beyond
        that is computed per choice.
        """
        if not self.forward.shares_trunk:
            return [_plain_scores(self.forward, example, choices, self.prompt) for example in batch]
        logits, past = _prefill(self.forward, batch, self.prompt, self.trunk)
        first = logits.float().log_softmax(-1)
        columns = []
        for choice in choices:
            column = first[:, choice[0]]
            if len(choice) > 1:
                column = column + _score_rest(self.forward, choice, past, self.prompt)
            columns.append(column)
        return torch.stack(columns, dim=1).tolist()

    @torch.no_grad()
    def generate(
        self, batch: Sequence[Example], max_new_tokens: int, sampling: Sampling = GREEDY
    ) -> list[list[list[int]]]:
        """`sampling.num_samples` answers to every example as token ids, without the token that ended them.

        An answer ends at one of the model's end tokens, after `max_new_tokens`, or where the model's context does.
        """
        if not self.forward.shares_trunk:
            return [_plain_generate(self.forward, e, self.prompt, max_new_tokens, sampling) for e in batch]
        answers = _generate_batch(self.forward, batch, self.prompt, self.trunk, max_new_tokens, sampling)
        k = sampling.num_samples
        return [answers[start : start + k] for start in range(0, len(answers), k)]


def score_choices(
    forward: Forward,
    examples: Sequence[Example],
    choices: Sequence[tuple[int, ...]],
    prompt: SoftPrompt,
    batch_size: int,
) -> list[list[float]]:
    """`Decoder.score_choices` for any number of examples, in batches of similar length."""
    decoder, scores = Decoder(forward, prompt), dict[int, list[float]]()
    for rows in batches_by_length(forward, examples, batch_size):
        batch = [examples[i] for i in rows]
        scores |= zip(rows, decoder.score_choices(batch, choices), strict=True)
    return [scores[i] for i in range(len(examples))]


def generate(
    forward: Forward,
    examples: Sequence[Example],
    prompt: SoftPrompt,
    max_new_tokens: int,
    batch_size: int,
    sampling: Sampling = GREEDY,
) -> list[list[list[int]]]:
    """`Decoder.generate` for any number of examples, in batches of similar length."""
    decoder, answers = Decoder(forward, prompt), dict[int, list[list[int]]]()
    for rows in batches_by_length(forward, examples, batch_size):
        batch = [examples[i] for i in rows]
        answers |= zip(rows, decoder.generate(batch, max_new_tokens, sampling), strict=True)
    return [answers[i] for i in range(len(examples))]


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
    forward: Forward,
    batch: Sequence[Example],
    prompt: SoftPrompt,
    trunk: Past,
    max_new_tokens: int,
    sampling: Sampling,
) -> list[list[int]]:
    """The answers to the first example, then those to the second, …; every query is computed once."""
    model, k = forward.model, sampling.num_samples
    answers: list[list[int]] = [[] for _ in range(len(batch) * k)]
    limits = [max_new_tokens] * len(batch)
    if model.max_length is not None:
        limits = [min(max_new_tokens, model.max_length - len(example.tokens)) for example in batch]
    with_room = [i for i, limit in enumerate(limits) if limit > 0]
    if not with_room:
        return answers
    logits, past = _prefill(forward, [batch[i] for i in with_room], prompt, trunk)
    uniforms = sampling.uniforms([example.id for example in batch], max_new_tokens)
    active = [i * k + number for i in with_room for number in range(k)]  # answers still growing, in the order of `past`
    if k > 1:
        copies = torch.arange(len(with_room), device=model.device).repeat_interleave(k)
        logits, past = logits[copies], past.select(copies)
    length = 0
    while True:
        chosen = sampling.choose(logits, None if uniforms is None else uniforms[active, length].to(model.device))
        going, length = [], length + 1
        for place, (row, token) in enumerate(zip(active, chosen.tolist(), strict=True)):
            if token in model.end_ids:
                continue
            answers[row].append(token)
            if length < limits[row // k]:
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


def _plain_generate(
    forward: Forward, example: Example, prompt: SoftPrompt, max_new_tokens: int, sampling: Sampling
) -> list[list[int]]:
    """Let the model generate by itself, one answer at a time: nothing is known of its cache, padding included."""
    tokens, mask = forward.pad([example.tokens])
    model, answers = forward.model, []
    drawing = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    for number in range(sampling.num_samples):
        with torch.random.fork_rng():
            torch.manual_seed(sampling.seed_of(example.id, number))
            output = model.network.generate(
                inputs_embeds=forward.embed(tokens, prompt),
                attention_mask=mask.long(),
                max_new_tokens=max_new_tokens,
                eos_token_id=sorted(model.end_ids),
                pad_token_id=min(model.end_ids),
                **({"do_sample": False} if sampling.is_greedy else drawing),
            )
        answer = output[0].tolist()
        end = next((i for i, token in enumerate(answer) if token in model.end_ids), len(answer))
        answers.append(answer[:end])
    return answers
