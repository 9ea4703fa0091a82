"""Answers that grow side by side: finished ones make room, and waiting examples take it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from embedgrad_cli.core.kernels.kv_cache import Past
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.sampling import Sampling
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.encoding import Example

# New examples come in once so much of the batch is free: each time costs a forward pass and a copy of the past.
ROOM = 0.25


class Generation:
    """Generates `sampling.num_samples` answers to each example.

    An answer ends at one of the model's end tokens, after `max_new_tokens`, or where the model's context does.

    Args:
        trunk: what the examples share, computed.
        at_once: answers that grow at the same time, at most.
    """

    def __init__(
        self,
        forward: Forward,
        examples: Sequence[Example],
        prompt: SoftPrompt,
        trunk: Past,
        max_new_tokens: int,
        at_once: int,
        sampling: Sampling,
    ) -> None:
        self.forward, self.examples, self.prompt, self.trunk = forward, examples, prompt, trunk
        self.at_once, self.sampling = at_once, sampling
        longest = forward.model.max_length
        rooms = [max_new_tokens if longest is None else longest - len(example.tokens) for example in examples]
        self.limits = [min(max_new_tokens, room) for room in rooms]
        self.uniforms = sampling.uniforms([example.id for example in examples], max_new_tokens)
        self.answers: list[list[int]] = [[] for _ in range(len(examples) * sampling.num_samples)]
        self.waiting = deque(i for i, limit in enumerate(self.limits) if limit > 0)
        self.growing: list[int] = []  # numbers of answers, in the order of the rows of `past` and `logits`
        self.past: Past
        self.logits: Tensor

    def run(self) -> list[list[int]]:
        """Token ids without those that ended the answers: all answers to the first example, then to the second, …"""
        while self.waiting or self.growing:
            if self._has_room():
                self._admit()
            self._choose()
            if self.growing:
                last = [self.answers[number][-1:] for number in self.growing]
                self.logits, self.past = self.forward.run(last, self.past, self.prompt, range(len(last)))
        return self.answers

    def _has_room(self) -> bool:
        if not self.growing:
            return True
        # Examples that come in later stand behind a gap, which not every model allows.
        free = self.at_once - len(self.growing)
        return bool(self.waiting) and free >= self._needed_room and self.forward.allows_gaps((1, 2))

    @property
    def _needed_room(self) -> int:
        return max(int(ROOM * self.at_once), self.sampling.num_samples)

    def _admit(self) -> None:
        """Compute the branches of as many examples as there is room for; each query is computed once."""
        k, free = self.sampling.num_samples, self.at_once - len(self.growing)
        new = [self.waiting.popleft() for _ in range(min(max(free // k, 1), len(self.waiting)))]
        logits, past = self.forward.prefill([self.examples[i] for i in new], self.prompt, self.trunk)
        if k > 1:
            copies = torch.arange(len(new), device=logits.device).repeat_interleave(k)
            logits, past = logits[copies], past.select(copies)
        if self.growing:
            logits, past = torch.cat([self.logits, logits]), self.past.compact().join(past)
        self.logits, self.past = logits, past
        self.growing += [i * k + sample for i in new for sample in range(k)]

    def _choose(self) -> None:
        """Give each growing answer its next token; those that are complete leave."""
        uniform = None
        if self.uniforms is not None:
            lengths = [len(self.answers[number]) for number in self.growing]
            uniform = self.uniforms[self.growing, lengths].to(self.logits.device)
        staying = []
        for place, token in enumerate(self.sampling.choose(self.logits, uniform).tolist()):
            answer = self.answers[self.growing[place]]
            if token in self.forward.model.end_ids:
                continue
            answer.append(token)
            if len(answer) < self.limits[self.growing[place] // self.sampling.num_samples]:
                staying.append(place)
        if len(staying) < len(self.growing):
            self.growing = [self.growing[place] for place in staying]
            kept = torch.tensor(staying, device=self.logits.device, dtype=torch.long)
            self.past = self.past.select(kept)
