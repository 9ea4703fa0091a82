"""A step waits for a GPU once: for the numbers that are shown and written down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import PLACEMENTS, make_model, optimize_config
from tests.core.passes.parity import encoded_rows, moved_prompt
from tests.waits import Waits

from embedgrad_cli.commands import optimize
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.query_cache import QueryCache


def test_waits_are_seen() -> None:
    tensor = torch.ones(2)
    for read in (
        lambda: tensor.sum().item(),
        tensor.tolist,
        lambda: bool(tensor.all()),
        lambda: tensor[tensor > 0],
        tensor.nonzero,
        tensor.cpu,
    ):
        with Waits() as waits:
            read()
        assert len(waits.seen) >= 1, read
    with Waits([tensor]) as waits:
        tensor[0].exp()
    assert not waits.seen


@pytest.mark.parametrize("in_place", [True, False], ids=["in place", "copies"])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_gradient_waits_for_nothing(placement: str, in_place: bool) -> None:
    model = make_model("llama")
    model.reads_trunk_in_place &= in_place
    encoded = encoded_rows(model, placement)
    prompt = moved_prompt(encoded, model)
    for queries in (None, QueryCache(10**8)):
        forward = Forward(model, encoded.examples, queries=queries)
        forward.accumulate_gradient(encoded.examples, prompt)  # what is computed once per run, and kept
        with Waits() as waits:
            forward.accumulate_gradient(encoded.examples, prompt)
        assert not waits.seen


@pytest.mark.parametrize("objective", [{}, {"objective__name": "gold"}])
def test_a_step_waits_once(
    tmp_path: Path,
    model_folder: Path,
    choice_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    objective: dict[str, Any],
) -> None:
    step, seen = optimize.Training._step, list[list[str]]()

    def watched(self: optimize.Training, *work: Any) -> None:
        state = self.optimizer.state.get(self.prompt.vectors, {})
        with Waits([state["step"]] if "step" in state else []) as waits:  # which Adam keeps on the host
            step(self, *work)
        seen.append(waits.seen)

    monkeypatch.setattr(optimize.Training, "_step", watched)
    more = {"train__average": 0.9, "train__token_dropout": 0.2, "train__steps": 3, **objective}
    optimize.run(optimize_config(tmp_path / "run", model_folder, choice_data, **more))
    assert [len(waits) for waits in seen[1:]] == [1, 1], seen
    assert "trainer.py" in seen[-1][0]
