"""KL of one prompt from another: whole sequences' by transformers, in its direction, and nothing for equal prompts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.conftest import PLACEMENTS, make_model
from tests.core.passes.parity import ARCHITECTURES, encoded_rows, moved_prompt
from torch.distributions import Categorical, kl_divergence

from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.passes.divergence import Divergence, divergences
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.token_likelihoods import States
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.encoding import Encoded
from embedgrad_cli.core.text.marked_tokens import Example, token_ids

Predictions = list[tuple[Categorical, Categorical]]  # of each example's target tokens: under the seed, and the prompt


def by_whole_sequences(model: LanguageModel, encoded: Encoded, prompt: SoftPrompt) -> Predictions:
    """What transformers predicts, one example at a time: of the seed from token ids, of the prompt from embeddings."""

    def of(example: Example) -> tuple[Categorical, Categorical]:
        ids = torch.tensor([[*token_ids(example.tokens, prompt.slots), *example.target]])
        marked = torch.tensor([[*example.tokens, *example.target]])
        embeds = model.network.get_input_embeddings()(ids).clone()
        embeds[marked < 0] = prompt.vectors[-1 - marked[marked < 0]]
        span = slice(len(example.tokens) - 1, -1)
        with torch.no_grad():
            seed, moved = model.network(input_ids=ids).logits, model.network(inputs_embeds=embeds).logits
        return Categorical(logits=seed[0, span].double()), Categorical(logits=moved[0, span].double())

    return [of(example) for example in encoded.examples]


def compared(model: LanguageModel, encoded: Encoded, prompt: SoftPrompt, shares_trunk: bool = True) -> list[Divergence]:
    seed = SoftPrompt.from_seed(prompt.slots, model)
    return divergences(Forward(model, encoded.examples, shares_trunk), encoded.examples, seed, prompt)


def decided(architecture: str, chat: bool = True) -> LanguageModel:
    """A random model that is surer of itself, as trained ones are: else both directions are nearly the same number."""
    model = make_model(architecture, chat)
    head = model.network.get_output_embeddings()
    if architecture != "gemma":  # which is sure enough
        head.weight = torch.nn.Parameter(8 * head.weight, requires_grad=False)  # of the output alone, if it was tied
    return model


def far_prompt(encoded: Encoded, model: LanguageModel) -> SoftPrompt:
    prompt = moved_prompt(encoded, model)
    with torch.no_grad():
        prompt.vectors.add_(9 * (prompt.vectors - prompt.seed))
    return prompt


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "mamba"])
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("chat", [True, False], ids=["chat", "plain"])
def test_it_is_that_of_whole_sequences(architecture: str, placement: str, chat: bool) -> None:
    model = decided(architecture, chat)
    encoded = encoded_rows(model, placement)
    prompt = far_prompt(encoded, model)
    found = compared(model, encoded, prompt, shares_trunk=architecture != "mamba")
    expected = by_whole_sequences(model, encoded, prompt)
    for one, example, (seed, moved) in zip(found, encoded.examples, expected, strict=True):
        assert len(one.kl) == len(example.target)
        kl, same = kl_divergence(seed, moved), seed.probs.argmax(-1) == moved.probs.argmax(-1)
        torch.testing.assert_close(torch.tensor(one.kl, dtype=torch.double), kl, rtol=1e-3, atol=2e-6)
        assert list(one.same_token) == same.tolist()


@pytest.mark.parametrize("architecture", ["qwen2", "llama", "mamba"])
def test_the_seed_is_what_is_lost(architecture: str) -> None:
    """KL(seed ‖ prompt), not KL(prompt ‖ seed): what the seed held likely is what counts."""
    model = decided(architecture)
    encoded = encoded_rows(model, "system")
    prompt = far_prompt(encoded, model)
    found = sum(sum(one.kl) for one in compared(model, encoded, prompt, shares_trunk=architecture != "mamba"))
    expected = by_whole_sequences(model, encoded, prompt)
    forwards = sum(kl_divergence(seed, moved).sum().item() for seed, moved in expected)
    backwards = sum(kl_divergence(moved, seed).sum().item() for seed, moved in expected)
    assert abs(forwards - backwards) > 0.01 * forwards
    assert found == pytest.approx(forwards, rel=1e-3)


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "mamba"])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_an_unmoved_prompt_is_exactly_its_seed(architecture: str, placement: str) -> None:
    model = make_model(architecture)
    encoded = encoded_rows(model, placement)
    found = compared(model, encoded, SoftPrompt.from_seed(encoded.slots, model), architecture != "mamba")
    assert {value for one in found for value in one.kl} == {0.0}
    assert all(all(one.same_token) for one in found)


def test_examples_keep_their_order_and_do_not_see_each_other() -> None:
    model = make_model()
    encoded = encoded_rows(model, "system", times=3)
    prompt = moved_prompt(encoded, model)
    together = compared(model, encoded, prompt)
    for example, one in zip(encoded.examples, together, strict=True):
        (alone,) = compared(model, replace(encoded, examples=[example]), prompt)
        assert one.kl == pytest.approx(alone.kl, rel=1e-3, abs=1e-6)


def test_a_token_that_cannot_be_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some models bar a part of their vocabulary with minus infinity."""
    model = make_model()
    encoded = encoded_rows(model, "system")
    prompt = moved_prompt(encoded, model)
    whole = compared(model, encoded, prompt)
    states = Forward.target_states

    def barred(self: Forward, *work: object) -> States:
        free = states(self, *work).logits()  # type: ignore[arg-type]
        return States(torch.cat([free, torch.full((len(free), 3), -torch.inf)], dim=1))

    monkeypatch.setattr(Forward, "target_states", barred)
    for one, other in zip(whole, compared(model, encoded, prompt), strict=True):
        assert one.kl == pytest.approx(other.kl, rel=1e-4, abs=1e-7)
