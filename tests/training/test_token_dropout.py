"""Dropped tokens are the seed's and have no gradient; what is dropped follows from the seed and the step."""

from __future__ import annotations

import torch
from tests.conftest import make_model
from tests.core.passes.parity import encoded_rows, gradient_by, moved_prompt

from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Slots
from embedgrad_cli.training.token_dropout import TokenDropout


def dropped(dropout: TokenDropout, step: int, num_tokens: int = 1000) -> torch.Tensor:
    prompt = SoftPrompt(Slots((tuple(range(num_tokens)),)), torch.zeros(num_tokens, 2), torch.ones(num_tokens, 2))
    used = dropout.of(prompt, step).vectors.detach()
    assert set(used.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(used[:, 0], used[:, 1]), "a token is dropped as a whole"
    return used[:, 0] == 0


def test_it_drops_the_share_it_is_told_and_other_tokens_in_each_step() -> None:
    dropout = TokenDropout(0.3, seed=0)
    assert 250 < dropped(dropout, 0).sum() < 350
    assert not torch.equal(dropped(dropout, 0), dropped(dropout, 1))
    assert not torch.equal(dropped(dropout, 0), dropped(TokenDropout(0.3, seed=1), 0))
    assert torch.equal(dropped(dropout, 7), dropped(TokenDropout(0.3, seed=0), 7)), "as a resumed run has it"
    assert 250 < dropped(TokenDropout(0.3, seed=10**30), 0).sum() < 350


def test_the_gradient_is_that_of_the_prompt_with_the_seed_s_tokens() -> None:
    model = make_model()
    encoded = encoded_rows(model, "both-sides")
    prompt, forward, dropout = moved_prompt(encoded, model), Forward(model, encoded.examples), TokenDropout(0.5, 3)
    used = dropout.of(prompt, 4)
    forward.accumulate_gradient(encoded.examples, used)
    dropout.hand_back(used, prompt, 4)
    is_dropped = (used.vectors == prompt.seed).all(1)
    assert 0 < is_dropped.sum() < len(is_dropped)
    expected = gradient_by(forward, encoded, SoftPrompt(prompt.slots, prompt.seed, used.vectors.detach()))
    assert prompt.vectors.grad is not None
    assert torch.equal(prompt.vectors.grad[~is_dropped], expected[~is_dropped])
    assert not prompt.vectors.grad[is_dropped].any()
    assert prompt.vectors.grad[~is_dropped].any(1).all()


def test_without_it_the_prompt_is_as_it_is() -> None:
    prompt = SoftPrompt(Slots(((5, 6),)), torch.zeros(2, 4))
    assert TokenDropout(None, 0).of(prompt, 1) is prompt
    assert TokenDropout(0.0, 0).of(prompt, 1) is prompt
