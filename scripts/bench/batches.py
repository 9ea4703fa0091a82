"""Ragged batches of random tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from embedgrad_cli.core.text.marked_tokens import Example


@dataclass(frozen=True)
class Shape:
    """Tokens of the prompt, mean tokens of the query, tokens of the target, examples; and where the prompt stands.

    Queries have half to one and a half times the mean. `placement` is `before` or `after` the query.
    """

    prompt: int
    query: int
    target: int
    batch: int
    placement: str = "before"

    @classmethod
    def parse(cls, text: str) -> Shape:
        """From `prompt,query,target,batch` and, if it is not in front, `,after`."""
        sizes, placement = text.removesuffix(",after"), "after" if text.endswith(",after") else "before"
        prompt, query, target, batch = map(int, sizes.split(","))
        return cls(prompt, query, target, batch, placement)

    @property
    def before(self) -> Shape:
        """The same sizes with the prompt in front, the only place that PEFT has for it."""
        return replace(self, placement="before")

    def examples(self, vocabulary: int) -> list[Example]:
        """The same examples every time, with the prompt as a slot."""
        generator = torch.Generator().manual_seed(self.prompt + self.query + self.target)

        def draw(n: int) -> tuple[int, ...]:
            return tuple(torch.randint(10, vocabulary, (n,), generator=generator).tolist())

        shortest, longest = max(self.query // 2, 1), self.query + self.query // 2
        lengths = torch.randint(shortest, longest + 1, (self.batch,), generator=generator).tolist()
        slot = tuple(-1 - i for i in range(self.prompt))
        queries = [draw(length) for length in lengths]
        parts = [(slot, query) if self.placement == "before" else (query, slot) for query in queries]
        return [Example(str(i), first + second, draw(self.target)) for i, (first, second) in enumerate(parts)]


def make_vectors(num_tokens: int, hidden_size: int) -> torch.Tensor:
    """The prompt both sides start from, `[num_tokens, hidden_size]`."""
    return torch.randn(num_tokens, hidden_size, generator=torch.Generator().manual_seed(1)) * 0.02
