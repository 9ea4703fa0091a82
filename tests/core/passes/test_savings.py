"""What saves time or memory changes neither loss nor gradient: kept queries, checkpointing, halved micro-batches."""

from __future__ import annotations

import resource
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from tests.conftest import PLACEMENTS, make_model
from tests.core.passes.parity import ARCHITECTURES, encoded_rows, gradient_by, moved_prompt, plain_gradient

from embedgrad_cli.core.kernels.activation_checkpointing import decoder_layers
from embedgrad_cli.core.kernels.memory import OutOfMemory
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.passes.forward import WORTH_SHARING, Forward
from embedgrad_cli.core.passes.query_cache import QueryCache
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.encoding import Encoded
from embedgrad_cli.core.text.marked_tokens import Example

PLENTY = 10**9


def count_tokens(model: LanguageModel) -> list[int]:
    """A list that grows by the tokens of every forward pass from now on."""
    seen: list[int] = []
    first = decoder_layers(model.network)[0]
    first.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(args[0].shape[0] * args[0].shape[1]), with_kwargs=True
    )
    return seen


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("budget", [PLENTY, 20_000, 0])
def test_kept_queries_give_the_plain_gradient_in_every_epoch(architecture: str, budget: int) -> None:
    model = make_model(architecture)
    encoded = encoded_rows(model, "after-query")
    prompt = moved_prompt(encoded, model)
    expected = plain_gradient(model, encoded, prompt)
    forward = Forward(model, encoded.examples, queries=QueryCache(budget))
    first = gradient_by(forward, encoded, prompt)
    assert (first - expected).norm() <= 1e-5 * expected.norm()
    assert torch.equal(gradient_by(forward, encoded, prompt), first)
    assert forward.queries is not None
    assert forward.queries.size <= budget


@pytest.mark.parametrize("architecture", ["qwen2", "gpt2", "mistral"])
def test_a_query_that_another_one_begins_with(architecture: str) -> None:
    """Nothing of it is left between trunk and slot."""
    model = make_model(architecture)
    slots = encoded_rows(model, "after-query").slots
    slot = tuple(-1 - i for i in range(slots.num_tokens))
    tokens = [(5, 6, *slot, 9), (5, 6, 11, 12, *slot, 9), (5, 6, 13, *slot, 9)]
    encoded = Encoded([Example(str(i), t, (7, 8)[: i + 1]) for i, t in enumerate(tokens)], slots, [])
    prompt = moved_prompt(encoded, model)
    expected = plain_gradient(model, encoded, prompt)
    for queries in (None, QueryCache(PLENTY)):
        forward = Forward(model, encoded.examples, queries=queries)
        for _ in range(2):
            gradient = gradient_by(forward, encoded, prompt)
            assert (gradient - expected).norm() <= 1e-5 * expected.norm()


def test_a_kept_query_is_not_computed_again() -> None:
    model = make_model()
    encoded = encoded_rows(model, "after-query")
    prompt = moved_prompt(encoded, model)
    forward = Forward(model, encoded.examples, queries=QueryCache(PLENTY))
    assert model.has_plain_head  # found out by a forward pass of its own
    seen = count_tokens(model)
    gradient_by(forward, encoded, prompt)
    first = sum(seen)
    seen.clear()
    gradient_by(forward, encoded, prompt)
    before_slot = sum(next(i for i, t in enumerate(e.tokens) if t < 0) - len(forward.trunk) for e in encoded.examples)
    assert first - sum(seen) == before_slot + len(forward.trunk)  # the trunk, too, only once


def test_a_kept_query_has_the_same_bytes_whatever_it_was_batched_with() -> None:
    model = make_model()
    encoded = encoded_rows(model, "after-query")
    prompt = moved_prompt(encoded, model)
    whole, single = (Forward(model, encoded.examples, queries=QueryCache(PLENTY)) for _ in range(2))
    gradient_by(whole, encoded, prompt)
    for example in encoded.examples:
        gradient_by(single, Encoded([example], encoded.slots, []), prompt)
    assert torch.equal(gradient_by(whole, encoded, prompt), gradient_by(single, encoded, prompt))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_checkpointed_activations_give_the_plain_gradient(architecture: str, placement: str) -> None:
    model = make_model(architecture)
    encoded = encoded_rows(model, placement)
    prompt = moved_prompt(encoded, model)
    expected = plain_gradient(model, encoded, prompt)
    forward = Forward(model, encoded.examples, checkpoint_activations=True)
    seen = count_tokens(model)
    assert (gradient_by(forward, encoded, prompt) - expected).norm() <= 1e-5 * expected.norm()
    again = sum(seen)
    seen.clear()
    gradient_by(Forward(model, encoded.examples), encoded, prompt)
    assert again > sum(seen), "nothing was computed again"
    assert not any("forward" in vars(layer) for layer in decoder_layers(model.network))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_checkpointed_activations_of_rows_that_share_nothing(architecture: str) -> None:
    """Nothing is computed before them: no trunk, and no queries where a window forbids gaps."""
    model = make_model(architecture)
    encoded = encoded_rows(model, "after-query")
    apart = [replace(e, tokens=(30 + number, *e.tokens[1:])) for number, e in enumerate(encoded.examples)]
    encoded, prompt = replace(encoded, examples=apart), moved_prompt(encoded, model)
    forward = Forward(model, apart, checkpoint_activations=True)
    assert not forward.trunk
    expected = plain_gradient(model, encoded, prompt)
    assert (gradient_by(forward, encoded, prompt) - expected).norm() <= 1e-5 * expected.norm()


def test_a_batch_that_shares_more_has_a_longer_trunk() -> None:
    model = make_model()
    encoded = encoded_rows(model, "system")
    prompt = moved_prompt(encoded, model)
    [first, *_] = sorted(encoded.examples, key=lambda e: -len(e.tokens))
    alike = [first, replace(first, target=first.target[::-1]), replace(first, tokens=(*first.tokens[:-1], 7))]
    batch = Encoded(alike, encoded.slots, [])
    forward = Forward(model, encoded.examples)
    assert len(first.tokens) - 1 >= len(forward.trunk) + WORTH_SHARING
    assert forward.compute_trunk(prompt, alike).width == len(first.tokens) - 1
    expected = plain_gradient(model, batch, prompt)
    assert (gradient_by(forward, batch, prompt) - expected).norm() <= 1e-5 * expected.norm()


def test_micro_batches_are_halved_when_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is raised here, after part of the work is done, because a test cannot fill the memory safely."""
    model = make_model()
    encoded = encoded_rows(model, "system")
    prompt = moved_prompt(encoded, model)
    forward = Forward(model, encoded.examples)
    expected = gradient_by(forward, encoded, prompt)
    real, sizes = forward.losses, []

    def limited(batch: list, *args: object) -> torch.Tensor:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return real(batch, *args)

    monkeypatch.setattr(forward, "losses", limited)
    prompt.vectors.grad = torch.ones_like(prompt.vectors)
    forward.accumulate_gradient(encoded.examples, prompt)
    assert torch.allclose(prompt.vectors.grad - 1, expected, rtol=1e-4, atol=1e-6)
    assert max(sizes) > 2
    sizes.clear()
    forward.accumulate_gradient(encoded.examples, prompt)
    assert max(sizes) <= 2, "what fits is remembered"
    assert forward.max_micro_batch == 2
    with pytest.raises(OutOfMemory, match=r"8 .*train\.micro_batch_size=auto"):
        forward.accumulate_gradient(encoded.examples * 4, prompt, 8)


NEEDS_TOO_MUCH = """
import resource, torch
from embedgrad_cli.core.kernels.memory import is_out_of_memory
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
try:
    torch.empty(1 << 40)
except RuntimeError as error:
    raise SystemExit(0 if is_out_of_memory(error) else str(error))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS"), reason="needs a limit on memory")
def test_an_allocation_that_fails_for_real_is_known_as_such() -> None:
    assert subprocess.run([sys.executable, "-c", NEEDS_TOO_MUCH], check=False, timeout=120).returncode == 0


def test_other_errors_are_not_taken_for_it() -> None:
    model = make_model()
    encoded = encoded_rows(model, "system")
    with pytest.raises(RuntimeError, match=r"shape|size"):
        Forward(model, encoded.examples).accumulate_gradient(
            encoded.examples, SoftPrompt(encoded.slots, torch.zeros(encoded.slots.num_tokens, 3))
        )
