"""Answers that grow side by side: finished ones free their rows, and waiting examples take these.

All stand after one shared prefix (trunk); what is computed of an example before its answer is its suffix (branch).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from embedgrad_cli.core.kernels.kv_cache import KeyValues
from embedgrad_cli.core.passes.ending import GeneratedAnswer
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.network_pass import logits_and_cache
from embedgrad_cli.core.passes.sampling import Sampling
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Example
from embedgrad_cli.core.text.stop_strings import StopStrings
from embedgrad_cli.storage.interrupts import stop_if_asked
from embedgrad_cli.storage.sample_records import Ending

# New examples come in once so much of the batch is free: each time costs a forward pass and a copy of the cache.
FREE_SHARE = 0.25


def widest(longest: int, max_new_tokens: int) -> int:
    """How wide a batch of answers gets, at most, gaps included; `longest` is the longest example.

    Where new rows come in, all are compact: no wider than an example with its answer. From then on nothing grows by
    more than an answer before new ones come in, or all are complete.
    """
    return longest + 2 * max_new_tokens


class Generation:
    """Generates `sampling.num_samples` answers to each example.

    An answer ends at one of the model's end tokens, where a stop string is complete, after `max_new_tokens`, or where
    the model's context does.

    Args:
        trunk: the keys and values of what the examples share.
        at_once: answers that grow at the same time, at most.
    """

    def __init__(
        self,
        forward: Forward,
        examples: Sequence[Example],
        prompt: SoftPrompt,
        trunk: KeyValues,
        max_new_tokens: int,
        at_once: int,
        sampling: Sampling,
        stops: StopStrings,
    ) -> None:
        self.forward, self.examples, self.prompt, self.trunk = forward, examples, prompt, trunk
        self.at_once, self.sampling, self.stops = at_once, sampling, stops
        context = forward.model.max_length
        left = [max_new_tokens if context is None else context - len(example.tokens) for example in examples]
        self.limits = [min(max_new_tokens, tokens_left) for tokens_left in left]
        self.width = widest(max((len(example.tokens) for example in examples), default=0), max_new_tokens)
        self.random_numbers = sampling.random_numbers([example.id for example in examples], max_new_tokens)
        self.answers: list[list[int]] = [[] for _ in range(len(examples) * sampling.num_samples)]
        self.endings: list[Ending] = ["limit"] * len(self.answers)
        self.waiting = deque(i for i, limit in enumerate(self.limits) if limit > 0)
        self.growing: list[int] = []  # numbers of answers, in the order of the rows of `key_values` and `logits`
        self.key_values: KeyValues
        self.logits: Tensor

    def run(self) -> list[GeneratedAnswer]:
        """All answers to the first example, then to the second, …"""
        while self.waiting or self.growing:
            stop_if_asked()
            if self._can_admit():
                self._admit()
            self._choose()
            if self.growing:
                last = [self.answers[number][-1:] for number in self.growing]
                self.logits, self.key_values = logits_and_cache(
                    self.forward.model, last, self.key_values.growing(), self.prompt, range(len(last))
                )
        pairs = zip(self.answers, self.endings, strict=True)
        return [GeneratedAnswer.of(answer, ending, self.stops) for answer, ending in pairs]

    def _can_admit(self) -> bool:
        if not self.growing:
            return True
        # Examples that come in later stand after a gap, which not every model allows.
        free = self.at_once - len(self.growing)
        enough = max(int(FREE_SHARE * self.at_once), self.sampling.num_samples)
        return bool(self.waiting) and free >= enough and self.forward.allows_gaps((1, 2), self.width)

    def _admit(self) -> None:
        """Compute the branches of as many examples as there are free rows for; each query is computed once."""
        k, free = self.sampling.num_samples, self.at_once - len(self.growing)
        new = [self.waiting.popleft() for _ in range(min(max(free // k, 1), len(self.waiting)))]
        logits, key_values = self.forward.prefill([self.examples[i] for i in new], self.prompt, self.trunk)
        if k > 1:
            copies = torch.arange(len(new), device=logits.device).repeat_interleave(k)
            logits, key_values = logits[copies], key_values.select(copies)
        if self.growing:
            logits = torch.cat([self.logits, logits])
            key_values = self.key_values.compact().join(key_values)
        self.logits, self.key_values = logits, key_values
        self.growing += [i * k + sample for i in new for sample in range(k)]

    def _choose(self) -> None:
        """Give each growing answer its next token; those that are complete leave."""
        random_numbers = None
        if self.random_numbers is not None:
            lengths = [len(self.answers[number]) for number in self.growing]
            random_numbers = self.random_numbers[self.growing, lengths].to(self.logits.device)
        staying = []
        for row, token in enumerate(self.sampling.choose(self.logits, random_numbers).tolist()):
            number = self.growing[row]
            answer = self.answers[number]
            if token in self.forward.model.end_ids:
                self.endings[number] = "end_of_turn"
                continue
            answer.append(token)
            if len(answer) < self.limits[number // self.sampling.num_samples] and not self.stops.ends(answer):
                staying.append(row)
        if len(staying) < len(self.growing):
            self.growing = [self.growing[row] for row in staying]
            kept = torch.tensor(staying, device=self.logits.device, dtype=torch.long)
            self.key_values = self.key_values.select(kept)
