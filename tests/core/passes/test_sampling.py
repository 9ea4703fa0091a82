"""Draws follow the model's probabilities, and stay inside the nucleus."""

from __future__ import annotations

import pytest
import torch

from embedgrad_cli.core.passes import sampling
from embedgrad_cli.core.passes.sampling import Sampling

PROBABILITIES = torch.tensor([0.05, 0.5, 0.15, 0.3])
DRAWS = 20_000


def drawn(way: Sampling) -> torch.Tensor:
    """The share of draws that each token got."""
    random_numbers = torch.rand(DRAWS, generator=torch.Generator().manual_seed(0))
    tokens = way.choose(PROBABILITIES.log().expand(DRAWS, -1), random_numbers)
    return torch.bincount(tokens, minlength=4) / DRAWS


@pytest.mark.parametrize(
    ("temperature", "top_p", "expected"),
    [
        (1.0, 1.0, PROBABILITIES),
        (0.5, 1.0, PROBABILITIES**2 / (PROBABILITIES**2).sum()),
        (1.0, 0.75, torch.tensor([0, 0.5, 0, 0.3]) / 0.8),  # 0.5 does not hold 0.75, 0.5 + 0.3 does
        (1.0, 0.4, torch.tensor([0.0, 1.0, 0.0, 0.0])),
    ],
)
def test_draws_follow_the_probabilities(temperature: float, top_p: float, expected: torch.Tensor) -> None:
    shares = drawn(Sampling(temperature=temperature, top_p=top_p))
    torch.testing.assert_close(shares, expected.float(), atol=0.012, rtol=0)
    assert torch.all(shares[expected == 0] == 0)


def test_the_ends_of_the_unit_interval() -> None:
    logits = PROBABILITIES.log().expand(2, -1)
    nucleus = Sampling(temperature=1.0, top_p=0.75)
    assert nucleus.choose(logits, torch.tensor([0.0, 1.0])).tolist() == [1, 3]
    assert Sampling().choose(logits, None).tolist() == [1, 1]


@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3])
def test_how_many_tokens_are_looked_at_first_changes_no_draw(top_p: float, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = (torch.randn(500, 300, generator=torch.Generator().manual_seed(1)) * 3).bfloat16()  # with equal ones
    numbers = torch.rand(500, generator=torch.Generator().manual_seed(2))
    draws = []
    for count in (1, 8, 300):
        monkeypatch.setattr(sampling, "LOOKED_AT", count)
        draws.append(Sampling(temperature=1.2, top_p=top_p).choose(logits, numbers))
    assert torch.equal(draws[0], draws[2])
    assert torch.equal(draws[1], draws[2])


def test_every_answer_has_numbers_of_its_own() -> None:
    way = Sampling(num_samples=2, temperature=1.0)
    first = way.random_numbers(["a", "b"], 5)
    assert first is not None
    assert first.shape == (4, 5)
    assert len({row[0].item() for row in first}) == 4
    assert torch.equal(first[2:], way.random_numbers(["b"], 5))
    assert Sampling().random_numbers(["a"], 5) is None
