"""Scoring of labels and generation of answers, on the keys and values of the shared prefix (trunk)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from embedgrad_cli.core.kernels.kv_cache import KeyValues
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.passes.ending import GeneratedAnswer
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.generation import Generation, widest
from embedgrad_cli.core.passes.network_pass import logits_at
from embedgrad_cli.core.passes.plain import plain_answers, plain_scores
from embedgrad_cli.core.passes.sampling import Sampling
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Example
from embedgrad_cli.core.text.stop_strings import StopStrings
from embedgrad_cli.storage.interrupts import stop_if_asked

GREEDY = Sampling()
REFILLED = 4  # batches whose rows take each other's places while answers are generated


class Decoder:
    """Answers batches of examples with one prompt; the trunk is computed with the first batch that needs it."""

    def __init__(self, forward: Forward, prompt: SoftPrompt) -> None:
        self.forward, self.prompt = forward, prompt

    @cached_property
    def trunk(self) -> KeyValues:
        return self.forward.compute_trunk(self.prompt)

    @torch.no_grad()
    def score_choices(self, batch: Sequence[Example], choices: Sequence[tuple[int, ...]]) -> list[list[float]]:
        """Log-likelihood of every choice (the sum over its tokens) after every example: `[examples][choices]`.

        The query is computed once. Its last position predicts every choice's first token; only what choices hold beyond
        that is computed per choice.
        """

        def score(part: Sequence[Example]) -> list[list[float]]:
            return self._score(part, choices)

        return self.forward.rows_that_fit.run(score, batch)

    def _score(self, batch: Sequence[Example], choices: Sequence[tuple[int, ...]]) -> list[list[float]]:
        if not self.forward.shares_trunk:
            return [plain_scores(self.forward.model, example, choices, self.prompt) for example in batch]
        logits, key_values = self.forward.prefill(batch, self.prompt, self.trunk)
        first = logits.float().log_softmax(-1)
        columns = []
        for choice in choices:
            column = first[:, choice[0]]
            if len(choice) > 1:
                column = column + _score_rest(self.forward.model, choice, key_values, self.prompt)
            columns.append(column)
        return torch.stack(columns, dim=1).tolist()

    @torch.no_grad()
    def target_losses(self, example: Example) -> Tensor:
        """Negative log-likelihood of every token of an example's target, `[target length]`, float32."""
        return self.forward.losses([example], self.prompt, self.trunk)

    @torch.no_grad()
    def likeliest_tokens(
        self, batch: Sequence[Example], k: int, always: Sequence[Sequence[int]]
    ) -> tuple[Tensor, Tensor]:
        """The `k` likeliest tokens where each target token is predicted, and their log-likelihoods; see `States`."""
        return self.forward.target_states(batch, self.prompt, self.trunk).likeliest(k, always)

    @torch.no_grad()
    def generate(
        self,
        examples: Sequence[Example],
        max_new_tokens: int,
        at_once: int,
        sampling: Sampling = GREEDY,
        stop: Sequence[str] = (),
    ) -> list[list[GeneratedAnswer]]:
        """`sampling.num_samples` answers to every example, each up to the first of the `stop` strings.

        `at_once` answers grow at the same time; see `generation`.
        """
        model = self.forward.model
        stops = StopStrings(tuple(stop), model.tokenizer)
        if not self.forward.shares_trunk:
            return [plain_answers(model, example, self.prompt, max_new_tokens, sampling, stops) for example in examples]
        k, fit = sampling.num_samples, self.forward.rows_that_fit
        while True:
            at_once = min(at_once, (fit.most or at_once) * k)
            try:
                work = (self.forward, examples, self.prompt, self.trunk, max_new_tokens, at_once, sampling, stops)
                answers = Generation(*work).run()
                return [answers[start : start + k] for start in range(0, len(answers), k)]
            except (RuntimeError, MemoryError) as error:
                if not fit.may_do_less(error):
                    raise
            fit.halve(min(at_once // k, len(examples)))


def score_choices(
    forward: Forward,
    examples: Sequence[Example],
    choices: Sequence[tuple[int, ...]],
    prompt: SoftPrompt,
    batch_size: int,
) -> list[list[float]]:
    """`Decoder.score_choices` for any number of examples, in batches of similar length."""
    decoder, scores = Decoder(forward, prompt), dict[int, list[float]]()
    for rows in batches_by_length(forward, examples, batch_size, max(map(len, choices), default=0)):
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
    stop: Sequence[str] = (),
) -> list[list[list[int]]]:
    """The token ids of `Decoder.generate` for any number of examples, `batch_size` of them at once."""
    decoder, answers = Decoder(forward, prompt), dict[int, list[list[int]]]()
    for rows in batches_by_length(forward, examples, batch_size * REFILLED, widest(0, max_new_tokens)):
        batch, at_once = [examples[i] for i in rows], batch_size * sampling.num_samples
        generated = decoder.generate(batch, max_new_tokens, at_once, sampling, stop)
        answers |= zip(rows, ([answer.ids for answer in of_row] for of_row in generated), strict=True)
    return [answers[i] for i in range(len(examples))]


def likeliest_tokens(
    forward: Forward,
    examples: Sequence[Example],
    prompt: SoftPrompt,
    k: int,
    always: Sequence[Sequence[Sequence[int]]],
    batch_size: int,
) -> list[tuple[Tensor, Tensor]]:
    """`Decoder.likeliest_tokens` for any number of examples: of each `[target length, k]` ids and log-likelihoods.

    Args: always: for each example, by the place in its target, ids that are among them whatever is likelier.
    """
    decoder, found = Decoder(forward, prompt), dict[int, tuple[Tensor, Tensor]]()

    def of_each(numbers: Sequence[int]) -> Sequence[tuple[Tensor, Tensor]]:
        batch = [examples[number] for number in numbers]
        lengths = [len(example.target) for example in batch]
        places = [ids for number in numbers for ids in always[number]]
        ids, likelihoods = decoder.likeliest_tokens(batch, k, places)
        return list(zip(ids.cpu().split(lengths), likelihoods.cpu().split(lengths), strict=True))

    order = sorted(range(len(examples)), key=lambda number: (examples[number].length, number))
    for start in range(0, len(order), batch_size):
        stop_if_asked()
        numbers = order[start : start + batch_size]
        found |= zip(numbers, forward.rows_that_fit.run(of_each, numbers), strict=True)
    return [found[number] for number in range(len(examples))]


def batches_by_length(
    forward: Forward, examples: Sequence[Example], batch_size: int, following: int
) -> Iterator[list[int]]:
    """Row numbers in batches of similar length; of one length where a gap would change the result.

    Args: following: places that come after the longest row of a batch, at most.
    """
    order = sorted(range(len(examples)), key=lambda i: (len(examples[i].tokens), i))
    batch: list[int] = []
    for row in order:
        lengths = [len(examples[i].tokens) for i in (*batch[:1], row)]
        if batch and (len(batch) == batch_size or not forward.allows_gaps(lengths, lengths[-1] + following)):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _score_rest(model: LanguageModel, choice: tuple[int, ...], key_values: KeyValues, prompt: SoftPrompt) -> Tensor:
    """Log-likelihood of a choice's tokens after the first, `[batch]`."""
    stop_if_asked()
    rows, length = len(key_values.mask), len(choice) - 1
    logits = logits_at(model, [choice[:-1]] * rows, key_values, prompt, range(rows * length))
    targets = torch.tensor(choice[1:], device=logits.device).repeat(rows)
    likelihoods = logits.float().log_softmax(-1).gather(1, targets[:, None])
    return likelihoods.view(rows, length).sum(dim=1)
