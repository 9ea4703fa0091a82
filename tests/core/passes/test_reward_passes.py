"""The reward objective by the trunk: loss and gradient of whole sequences, one answer of one row at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tests.conftest import PLACEMENTS, make_model
from tests.core.passes.parity import ARCHITECTURES, assert_parity, encoded_rows, gradient_of, moved_prompt
from tests.core.passes.test_savings import count_tokens

from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.objectives import Reward, RowAnswers, leave_one_out
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.plain import plain_logits
from embedgrad_cli.core.passes.query_cache import QueryCache
from embedgrad_cli.core.passes.sampling import Sampling
from embedgrad_cli.core.passes.scoring import Decoder
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.encoding import Encoded
from embedgrad_cli.core.text.marked_tokens import Example

# The answers to each row, with their rewards: of different length, equal ones, one that begins another, an empty one.
ANSWERS: list[list[tuple[tuple[int, ...], float]]] = [
    [((5, 6, 7, 8), 1.0), ((9,), 0.0), ((5, 6), 0.0)],
    [((40, 41), 0.25), ((42, 43, 44, 45, 46), -2.0), ((40, 41), 1.0)],
    [((7,), 1.0), ((8,), 0.0), ((), 0.5)],
    [((11, 12, 13), 1.0), ((14, 15), 1.0), ((16,), 1.0)],  # teaches nothing
    [((17, 18), 0.0), ((19, 20, 21), 1.0), ((22, 23, 24, 25, 26, 27), 0.0)],
]
NUMBER = sum(map(len, ANSWERS))
EVERY_WAY: list[dict[str, Any]] = [
    {"shares_trunk": False},
    {"checkpoint_activations": True},
    {"queries": QueryCache(10**9)},
]


def case(architecture: str, placement: str, temperature: float) -> tuple[LanguageModel, Encoded, SoftPrompt, Reward]:
    model = make_model(architecture)
    if (bias := getattr(model.network.get_output_embeddings(), "bias", None)) is not None:
        bias.copy_(torch.randn(bias.shape, generator=torch.Generator().manual_seed(2)))
    encoded = encoded_rows(model, placement)
    rows = {
        example.id: RowAnswers.of([ids for ids, _ in of_row], leave_one_out([reward for _, reward in of_row]))
        for example, of_row in zip(encoded.examples, ANSWERS, strict=True)
    }
    return model, encoded, moved_prompt(encoded, model), Reward(rows, NUMBER, temperature)


def used(encoded: Encoded, objective: Reward) -> list[Example]:
    return [example for example in encoded.examples if objective.rows[example.id].ids]


def plain_loss(
    model: LanguageModel, examples: Sequence[Example], prompt: SoftPrompt, temperature: float
) -> torch.Tensor:
    """From whole sequences and the rewards, without any of the product's passes, objectives or savings."""
    total = torch.zeros(())
    for example, of_row in zip(examples, ANSWERS, strict=True):
        rewards = [reward for _, reward in of_row]
        for number, (ids, reward) in enumerate(of_row):
            advantage = reward - sum(rewards[:number] + rewards[number + 1 :]) / (len(rewards) - 1)
            embeds = prompt.embed(torch.tensor([[*example.tokens, *ids]]), model)
            logits = model.network(inputs_embeds=embeds, use_cache=False).logits[0].float()
            likelihoods = (logits / temperature).log_softmax(-1)
            first = len(example.tokens) - 1
            total = total - advantage * sum(likelihoods[first + i, token] for i, token in enumerate(ids))
    return total / NUMBER


def assert_plain(
    forward: Forward, encoded: Encoded, prompt: SoftPrompt, objective: Reward, size: int | None = None
) -> None:
    plain = plain_loss(forward.model, encoded.examples, prompt, objective.temperature)
    assert_parity(forward, used(encoded, objective), prompt, plain, size)


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "phi"])  # whose output layer has a bias
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_trunk_gives_the_plain_loss_and_gradient(architecture: str, placement: str) -> None:
    for temperature, size in ((1.0, None), (0.7, 1), (1.5, 2)):
        model, encoded, prompt, objective = case(architecture, placement, temperature)
        forward = Forward(model, encoded.examples, objective=objective)
        assert len(forward.trunk) > 2
        assert_plain(forward, encoded, prompt, objective, size)


@pytest.mark.parametrize("settings", EVERY_WAY, ids=lambda settings: next(iter(settings)))
@pytest.mark.parametrize("placement", ["system", "after-query"])
def test_every_way_of_computing_gives_the_plain_gradient(settings: dict[str, Any], placement: str) -> None:
    model, encoded, prompt, objective = case("qwen2", placement, 0.7)
    forward = Forward(model, encoded.examples, objective=objective, **settings)
    for _ in range(2):
        assert_plain(forward, encoded, prompt, objective, 3)


@pytest.mark.parametrize("temperature", [1.0, 1.5])
def test_the_gradient_is_that_of_the_mean_reward(temperature: float) -> None:
    """Of answers of one token, whose rewards' expectation can be had exactly: what many draws give on average."""
    model = make_model("qwen2")
    encoded = encoded_rows(model, "system", 2)
    prompt, forward = SoftPrompt.from_seed(encoded.slots, model), Forward(model, encoded.examples)
    last = [plain_logits(model, one.tokens, [len(one.tokens) - 1], prompt)[0] for one in encoded.examples]
    rewards = last[0].detach()  # of tokens that are alike for the model
    expected = gradient_of(-(torch.stack(last) / temperature).softmax(-1).matmul(rewards).mean(), prompt)
    prompt.vectors.grad = None
    for seed in range(8):
        sampling = Sampling(num_samples=64, temperature=temperature, seed=seed)
        answers = Decoder(forward, prompt).generate(encoded.examples, 1, 1000, sampling)
        (end,) = model.end_ids
        ids = [[(*one.ids, end)[:1] for one in of_row] for of_row in answers]
        rows = {
            example.id: RowAnswers.of(of_row, leave_one_out([float(rewards[one[0]]) for one in of_row]))
            for example, of_row in zip(encoded.examples, ids, strict=True)
        }
        forward.objective = Reward(rows, 64 * len(ids), temperature)
        forward.accumulate_gradient(encoded.examples, prompt)
    assert prompt.vectors.grad is not None
    mean = prompt.vectors.grad / 8
    assert torch.cosine_similarity(mean.flatten(), expected.flatten(), dim=0) > 0.9
    assert float(mean.norm() / expected.norm()) == pytest.approx(1.0, abs=0.2)


def test_rows_that_teach_nothing_change_nothing() -> None:
    """They need not be computed, and the others are not weighted up for them."""
    model, encoded, prompt, objective = case("qwen2", "system", 1.0)
    examples = used(encoded, objective)
    assert len(examples) == len(ANSWERS) - 1
    assert objective.num_terms(examples) == objective.num_terms(encoded.examples) == NUMBER
    assert_plain(Forward(model, encoded.examples, objective=objective), encoded, prompt, objective)


def test_a_conversation_is_computed_once_however_many_answers_it_has() -> None:
    """Of each answer only what follows its first token is computed besides, and the trunk once for all rows."""
    model, encoded, prompt, objective = case("qwen2", "system", 1.0)
    assert model.has_plain_head
    forward, seen = Forward(model, encoded.examples, objective=objective), count_tokens(model)
    examples = used(encoded, objective)
    forward.accumulate_gradient(examples, prompt, 2)
    branches = sum(len(example.tokens) - len(forward.trunk) for example in examples)
    more = sum(len(ids) - 1 for example in examples for ids in objective.rows[example.id].ids)
    assert sum(seen) == len(forward.trunk) + branches + more
