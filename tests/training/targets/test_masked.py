"""`objective.mask`: target tokens that the seed finds improbable are left out of the loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import optimize_config
from tests.stops import run_until

from embedgrad_cli.commands import optimize
from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.core.objectives import MaskedGold
from embedgrad_cli.core.passes.plain import plain_losses
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.errors import UserError
from embedgrad_cli.training.targets.masked import Masked

LEAST = 0.002  # about one in as many as the vocabulary of the tiny model has: some are below, some above


@pytest.fixture
def make(tmp_path: Path, model_folder: Path) -> Any:
    data = tmp_path / "data"
    data.mkdir()
    for split, start in [("train", 0), ("validation", 100), ("test", 200)]:
        rows = [{"q": f"Tom has {start + i} apples", "a": f"{i} apples and {i} pages #### {i % 3}"} for i in range(6)]
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"kind": "generation", "choices": None, "labels": None, "grader": "last-number"}
    task |= {"query": "{q}", "target": "{a}", "max_new_tokens": 4}
    small = {f"task__{key}": value for key, value in task.items()} | {"train__steps": 4, "train__batch_size": 4}

    def config(name: str, mask: float | None = LEAST, **changes: Any) -> OptimizeConfig:
        return optimize_config(tmp_path / name, model_folder, data, **small, objective__mask=mask, **changes)

    return config


def steps(run: Path) -> list[float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def test_left_out_is_what_the_seed_finds_improbable(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, batch = [], Masked.batch

    def watched(self: Masked, step: int, prompt: SoftPrompt) -> Any:
        of_step = batch(self, step, prompt)
        seen.append((self, of_step, SoftPrompt(prompt.slots, prompt.seed)))
        return of_step

    monkeypatch.setattr(Masked, "batch", watched)
    optimize.run(make("run"))
    assert len(seen) == 4
    for targets, of_step, seed in seen:
        assert isinstance(targets.objective, MaskedGold)
        for example in of_step:
            probabilities = (-plain_losses(targets.material.model, [example], seed)).exp()
            assert (probabilities >= LEAST).tolist() == list(targets.objective.kept[example])
    kept = [keeps for targets, _, _ in seen for of_row in targets.objective.kept.values() for keeps in of_row]
    assert 0.1 < sum(kept) / len(kept) < 0.9


@pytest.mark.slow
def test_a_mask_that_leaves_nothing_out_is_gold(make: Any, tmp_path: Path) -> None:
    for name, mask in {"gold": None, "all": 1e-30, "some": LEAST}.items():
        optimize.run(make(name, mask))

    assert steps(tmp_path / "all") == steps(tmp_path / "gold")
    assert steps(tmp_path / "some") != steps(tmp_path / "gold")


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_byte(make: Any, tmp_path: Path) -> None:
    """From the middle of the first epoch on, when another prompt is in training."""
    optimize.run(make("whole"))
    run_until(1, make("parts"))
    optimize.run(make("parts"))
    assert (tmp_path / "whole/checkpoint.safetensors").read_bytes() == (
        tmp_path / "parts/checkpoint.safetensors"
    ).read_bytes()


def test_a_mask_that_leaves_out_everything_is_a_message(make: Any) -> None:
    with pytest.raises(UserError, match=r"objective\.mask=1: it leaves out every target token") as caught:
        optimize.run(make("run", 1.0))
    assert "\n" not in str(caught.value)
