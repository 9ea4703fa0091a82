"""The gold loss on some target tokens, by the trunk: loss and gradient of a plain computation."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import PLACEMENTS, make_model
from tests.core.passes.parity import ARCHITECTURES, encoded_rows, gradient_of, moved_prompt

from embedgrad_cli.core.objectives import Gold, MaskedGold
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.plain import plain_losses
from embedgrad_cli.core.passes.scoring import Decoder
from embedgrad_cli.core.text.encoding import Encoded


def some_tokens(encoded: Encoded) -> MaskedGold:
    """Every other token of all targets, so of the shortest, one token, none."""
    number, kept = 0, {}
    for example in encoded.examples:
        kept[example] = tuple((number + i) % 2 == 1 for i in range(len(example.target)))
        number += len(example.target)
    return MaskedGold(kept)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_trunk_gives_the_plain_loss_and_gradient(architecture: str, placement: str) -> None:
    model = make_model(architecture)
    encoded = encoded_rows(model, placement)
    prompt, objective = moved_prompt(encoded, model), some_tokens(encoded)
    mask = torch.tensor([keeps for example in encoded.examples for keeps in objective.kept[example]])
    plain = plain_losses(model, encoded.examples, prompt)[mask].mean()
    expected = gradient_of(plain, prompt)

    for size in (None, 1, 3):
        prompt.vectors.grad = None
        loss = Forward(model, encoded.examples, objective=objective).accumulate_gradient(encoded.examples, prompt, size)
        assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
        assert prompt.vectors.grad is not None
        assert (prompt.vectors.grad - expected).norm() <= 1e-5 * expected.norm()


def test_all_tokens_are_gold() -> None:
    model = make_model()
    encoded = encoded_rows(model, "system")
    everything = MaskedGold({example: (True,) * len(example.target) for example in encoded.examples})
    losses = [
        Forward(model, encoded.examples, objective=objective).accumulate_gradient(
            encoded.examples, moved_prompt(encoded, model)
        )
        for objective in (Gold(), everything)
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("shares_trunk", [True, False])
def test_a_decoder_gives_the_losses_of_a_target(shares_trunk: bool) -> None:
    model = make_model()
    encoded = encoded_rows(model, "both-sides")
    prompt = moved_prompt(encoded, model)
    decoder = Decoder(Forward(model, encoded.examples, shares_trunk), prompt)
    for example in encoded.examples:
        losses = decoder.target_losses(example)
        assert not losses.requires_grad
        torch.testing.assert_close(losses, plain_losses(model, [example], prompt).detach())
