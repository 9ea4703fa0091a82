"""Which token comes next: the likeliest, or one that is drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Likeliest tokens among which nearly every draw ends; for the others the whole vocabulary is sorted. To sort it for all
# took 4.4 s of one CPU thread for 100 rows of 152,000 logits, and this takes 0.6 s.
LOOKED_AT = 256


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
        return torch.stack([torch.rand(length, generator=seeded(seed)) for seed in seeds])

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
        scaled, numbers = logits.float() / self.temperature, random_numbers.to(logits.device, torch.float64)
        norms = scaled.logsumexp(-1, keepdim=True)

        def draw(rows: Tensor | slice, count: int) -> tuple[Tensor, Tensor]:
            """Each row's token among its likeliest ones, and whether it is that of the whole vocabulary."""
            likeliest, tokens = _likeliest(scaled[rows], count)
            probabilities = (likeliest.double() - norms[rows].double()).exp()
            rank = self._rank(probabilities, numbers[rows])
            enough = probabilities.sum(-1) > (numbers[rows] if self.top_p == 1 else self.top_p)
            # Of tokens as likely as the last one, others may have been left out.
            inside = (likeliest.gather(-1, rank) > likeliest[:, -1:]).squeeze(-1)
            return tokens.gather(-1, rank).squeeze(-1), enough & inside

        chosen, sure = draw(slice(None), min(LOOKED_AT, scaled.shape[1]))
        others = torch.nonzero(~sure).flatten()
        if len(others):
            chosen[others], _ = draw(others, scaled.shape[1])
        return chosen

    def _rank(self, probabilities: Tensor, numbers: Tensor) -> Tensor:
        """Which of the likeliest tokens is drawn, `[rows, 1]`, from their probabilities, in falling order."""
        summed = probabilities.cumsum(-1)
        in_nucleus = summed - probabilities < self.top_p
        # Of all tokens the mass is 1, however many of them are given.
        mass = (probabilities * in_nucleus).sum(-1, keepdim=True) if self.top_p < 1 else torch.ones_like(summed[:, :1])
        rank = torch.searchsorted(summed, numbers[:, None] * mass, right=True)
        last = in_nucleus.sum(-1, keepdim=True) - 1  # rounding must not lead out of the nucleus
        return torch.minimum(rank, last)


def seeded(seed: int) -> torch.Generator:
    """A generator on the CPU; of a seed it takes the last 64 bits."""
    return torch.Generator().manual_seed(seed % 2**64)


def _likeliest(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest logits of each row and their tokens, both `[rows, count]`; of equal ones the first comes first."""
    tokens = logits.topk(count, dim=-1, sorted=False).indices.sort(dim=-1).values
    values, places = logits.gather(-1, tokens).sort(dim=-1, descending=True, stable=True)
    return values, tokens.gather(-1, places)
