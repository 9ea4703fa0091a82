"""Promise 6: the gradient of several processes is that of one, on every placement and for every objective."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tests.conftest import PLACEMENTS, make_model
from tests.core.passes.parity import encoded_rows, gradient_by, moved_prompt, plain_gradient
from tests.core.passes.test_choice_scores import MIXED, case
from tests.parallel.processes import results

from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Example
from embedgrad_cli.parallel.join import joined
from embedgrad_cli.parallel.ranks import ALONE, Ranks
from embedgrad_cli.training.gradient import set_gradient

CASES = [*PLACEMENTS, "choices", "no trunk", "one row"]
pytestmark = pytest.mark.slow


def prepared(name: str) -> tuple[Forward, Sequence[Example], SoftPrompt]:
    if name == "choices":
        model, encoded, prompt, objective = case("qwen2", "after-query", MIXED, "mean", (0.7, 0.3))
        return Forward(model, encoded.examples, objective=objective), encoded.examples, prompt
    model = make_model()
    encoded = encoded_rows(model, name if name in PLACEMENTS else "both-sides", times=2)
    rows = encoded.examples[: 1 if name == "one row" else None]
    return Forward(model, encoded.examples, shares_trunk=name != "no trunk"), rows, moved_prompt(encoded, model)


def computed(name: str, ranks: Ranks) -> dict[str, Any]:
    forward, rows, prompt = prepared(name)
    loss = set_gradient(forward, rows, prompt, None, ranks)
    assert prompt.vectors.grad is not None
    return {"loss": loss.item(), "gradient": prompt.vectors.grad.tolist()}


def compute_all() -> dict[str, Any]:
    with joined(None, "cpu") as ranks:
        return {name: computed(name, ranks) for name in CASES}


@pytest.fixture(scope="module", params=[2, 3])
def of_ranks(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return results(request.param, compute_all)


@pytest.mark.parametrize("name", CASES)
def test_several_processes_give_the_gradient_of_one(name: str, of_ranks: list[dict[str, Any]]) -> None:
    alone, first = computed(name, ALONE), of_ranks[0][name]
    assert first["loss"] == pytest.approx(alone["loss"], rel=1e-5)
    expected = torch.tensor(alone["gradient"])
    assert expected.norm() > 0
    assert (torch.tensor(first["gradient"]) - expected).norm() <= 1e-5 * expected.norm()
    assert all(other[name] == first for other in of_ranks), "to the last bit"


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_one_process_gives_the_gradient_of_the_plain_forward(placement: str) -> None:
    forward, rows, prompt = prepared(placement)
    set_gradient(forward, rows, prompt, None, ALONE)
    assert prompt.vectors.grad is not None
    ours, encoded = prompt.vectors.grad.clone(), encoded_rows(forward.model, placement, times=2)
    assert torch.equal(ours, gradient_by(Forward(forward.model, rows), encoded, prompt))
    plain = plain_gradient(forward.model, encoded, prompt)
    assert (ours - plain).norm() <= 1e-5 * plain.norm()


def short_of_memory() -> dict[str, Any]:
    """On the second rank, more than two rows at once are too much."""
    with joined(None, "cpu") as ranks:
        forward, rows, prompt = prepared("system")
        work = forward._backward

        def limited(batch: Sequence[Example], prompt: SoftPrompt, size: int | None) -> torch.Tensor:
            if ranks.number == 1 and (size or len(batch)) > 2:
                raise RuntimeError("DefaultCPUAllocator: not enough memory")
            return work(batch, prompt, size)

        forward._backward = limited  # type: ignore[method-assign]
        loss = set_gradient(forward, rows, prompt, None, ranks)
        assert prompt.vectors.grad is not None
        return {"loss": loss.item(), "gradient": prompt.vectors.grad.tolist(), "most": forward.max_micro_batch}


def test_memory_that_runs_out_on_one_halves_the_batches_of_all() -> None:
    alone, both = computed("system", ALONE), results(2, short_of_memory)
    assert [one["most"] for one in both] == [2, 2]
    expected = torch.tensor(alone["gradient"])
    assert (torch.tensor(both[0]["gradient"]) - expected).norm() <= 1e-5 * expected.norm()
    assert both[0] == both[1]
