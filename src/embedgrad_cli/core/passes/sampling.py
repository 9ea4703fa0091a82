"""Which token comes next: the likeliest, or one that is drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn. `temperature` 0 takes the likeliest token; `top_p` is nucleus sampling's share of
    probability (Holtzman et al. 2020, arXiv:1904.09751); `num_samples` answers are given to each example."""

    num_samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    def random_numbers(self, ids: Sequence[str], length: int) -> Tensor | None:
        """One number from 0 to 1 per token that may come: `[examples * num_samples, length]`; None if greedy.

        Each answer has a generator of its own, seeded by the example's id and the answer's number: so it is the same
        in any batch, as far as the logits are.
        """
        if self.is_greedy:
            return None
        seeds = [self.seed_of(example_id, number) for example_id in ids for number in range(self.num_samples)]
        return torch.stack([torch.rand(length, generator=torch.Generator().manual_seed(seed)) for seed in seeds])

    def seed_of(self, example_id: str, number: int) -> int:
        digest = hashlib.sha256(f"{self.seed}\n{number}\n{example_id}".encode()).digest()
        return int.from_bytes(digest[:8]) >> 1  # torch takes 63 bits

    def choose(self, logits: Tensor, random_numbers: Tensor | None) -> Tensor:
        """The next token of every row: logits `[rows, vocabulary]`, random numbers `[rows]` → `[rows]`.

        A draw takes the first token, from the likeliest down, at which the summed probability exceeds the random
        number times that of the nucleus: the smallest set of likeliest tokens that holds `top_p`.
        """
        if random_numbers is None:
            return logits.argmax(dim=-1)
        likeliest, order = (logits.double() / self.temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
        summed = likeliest.cumsum(-1)
        in_nucleus = summed - likeliest < self.top_p
        mass = (likeliest * in_nucleus).sum(-1, keepdim=True)
        rank = torch.searchsorted(summed, random_numbers.to(summed)[:, None] * mass, right=True)
        last = in_nucleus.sum(-1, keepdim=True) - 1  # rounding must not lead out of the nucleus
        return order.gather(-1, torch.minimum(rank, last)).squeeze(-1)
