"""The distillation objective by the trunk: loss and gradient of a plain computation, one row at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.conftest import PLACEMENTS, make_model
from tests.core.passes.parity import ARCHITECTURES, assert_parity, encoded_rows, moved_prompt

from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.objectives import Distill, SoftTargets
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.query_cache import QueryCache
from embedgrad_cli.core.passes.scoring import likeliest_tokens
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.encoding import Encoded
from embedgrad_cli.core.text.marked_tokens import Example

TOP = 20


def plain_likelihoods(model: LanguageModel, example: Example, prompt: SoftPrompt) -> torch.Tensor:
    """Of the whole vocabulary where each target token is predicted, without any of the product's passes."""
    embeds = prompt.embed(torch.tensor([[*example.tokens, *example.target]]), model)
    logits = model.network(inputs_embeds=embeds, use_cache=False).logits[0, len(example.tokens) - 1 : -1]
    return logits.float().log_softmax(-1)


def case(
    architecture: str, placement: str, top: int = TOP, sharpness: float = 3.0
) -> tuple[LanguageModel, Encoded, SoftPrompt, Distill]:
    """The teacher's soft targets are computed plainly; it is the seed but surer of itself, and the prompt away from it.

    Random models hardly listen to a prompt, so without the sharpness two of them would predict nearly the same.
    """
    model = make_model(architecture)
    encoded = encoded_rows(model, placement)
    seed, rows = SoftPrompt.from_seed(encoded.slots, model), dict[str, SoftTargets]()
    for example in encoded.examples:
        likelihoods = plain_likelihoods(model, example, seed).detach()
        likeliest = (sharpness * likelihoods).log_softmax(-1).topk(top)
        rows[example.id] = SoftTargets(likeliest.indices, likeliest.values)
    return model, encoded, moved_prompt(encoded, model), Distill(rows)


def plain_loss(model: LanguageModel, encoded: Encoded, prompt: SoftPrompt, objective: Distill) -> torch.Tensor:
    losses = []
    for example in encoded.examples:
        soft, ours = objective.rows[example.id], plain_likelihoods(model, example, prompt)
        some = ours.gather(1, soft.ids)
        others = ours.scatter(1, soft.ids, -torch.inf).logsumexp(1)
        shares = soft.likelihoods.exp()
        rest = 1 - shares.sum(1)
        losses.append((shares * (soft.likelihoods - some)).sum(1) + rest * (rest.log() - others))
    return torch.cat(losses).mean()


def assert_plain(forward: Forward, encoded: Encoded, prompt: SoftPrompt, objective: Distill, size: int | None) -> None:
    assert_parity(forward, encoded.examples, prompt, plain_loss(forward.model, encoded, prompt, objective), size)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_trunk_gives_the_plain_loss_and_gradient(architecture: str, placement: str) -> None:
    model, encoded, prompt, objective = case(architecture, placement)
    forward = Forward(model, encoded.examples, objective=objective)
    assert len(forward.trunk) > 2
    assert_plain(forward, encoded, prompt, objective, 2)


@pytest.mark.parametrize(
    "settings",
    [{"shares_trunk": False}, {"checkpoint_activations": True}, {"queries": QueryCache(10**9)}],
    ids=lambda settings: next(iter(settings)),
)
@pytest.mark.parametrize("placement", ["system", "after-query"])
def test_every_way_of_computing_gives_the_plain_gradient(settings: dict[str, Any], placement: str) -> None:
    model, encoded, prompt, objective = case("qwen2", placement)
    forward = Forward(model, encoded.examples, objective=objective, **settings)
    for _ in range(2):
        assert_plain(forward, encoded, prompt, objective, 3)


@pytest.mark.parametrize("architecture", ["qwen2", "gemma2"])  # hidden states, and logits
@pytest.mark.parametrize("shares_trunk", [True, False])
def test_the_likeliest_tokens_are_those_of_whole_sequences(architecture: str, shares_trunk: bool) -> None:
    model, encoded, prompt, _ = case(architecture, "before-query")
    forward, never = Forward(model, encoded.examples, shares_trunk), [[[]] * len(e.target) for e in encoded.examples]
    found = likeliest_tokens(forward, encoded.examples, prompt, TOP, never, batch_size=2)
    for example, (ids, likelihoods) in zip(encoded.examples, found, strict=True):
        plain = plain_likelihoods(model, example, prompt).detach()
        torch.testing.assert_close(likelihoods, plain.topk(TOP).values, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(plain.gather(1, ids), likelihoods, rtol=1e-5, atol=1e-5)


def test_tokens_that_are_asked_for_are_among_the_likeliest() -> None:
    model, encoded, prompt, _ = case("qwen2", "system")
    forward = Forward(model, encoded.examples)
    unlikely = [plain_likelihoods(model, e, prompt).argmin(1)[:, None].tolist() for e in encoded.examples]
    found = likeliest_tokens(forward, encoded.examples, prompt, TOP, unlikely, batch_size=8)
    for example, (ids, likelihoods), wanted in zip(encoded.examples, found, unlikely, strict=True):
        assert (ids == torch.tensor(wanted)).sum(1).tolist() == [1] * len(example.target)
        assert ids.shape == (len(example.target), TOP)
        plain = plain_likelihoods(model, example, prompt).detach()
        torch.testing.assert_close(likelihoods[:, :-1], plain.topk(TOP - 1).values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("top", [TOP, None])
def test_a_prompt_that_is_its_own_teacher_has_no_gradient(top: int | None) -> None:
    """With few tokens as with the whole vocabulary."""
    model = make_model("qwen2")
    _, encoded, moved, objective = case("qwen2", "system", top or len(model.tokenizer), sharpness=1.0)
    seed, norms = SoftPrompt.from_seed(encoded.slots, model), list[float]()
    for prompt in (moved, seed):
        Forward(model, encoded.examples, objective=objective).accumulate_gradient(encoded.examples, prompt)
        assert prompt.vectors.grad is not None
        norms.append(prompt.vectors.grad.norm().item())
    assert norms[1] < 1e-5 * norms[0]


def test_the_whole_vocabulary_is_never_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The output layer itself never runs: what it would give is `[total target length, vocabulary]`."""
    model, encoded, prompt, objective = case("llama", "system")
    assert model.has_plain_head  # found out by a forward pass of its own
    monkeypatch.setattr(model.network.get_output_embeddings(), "forward", None)
    Forward(model, encoded.examples, objective=objective).accumulate_gradient(encoded.examples, prompt)
