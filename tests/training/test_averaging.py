"""The average of the vectors: the plain weighted mean of those after each step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import optimize_config

from embedgrad_cli.commands import optimize
from embedgrad_cli.core.prompt.artifact import load_artifact
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Slots
from embedgrad_cli.training.averaging import Averaging


def prompt_of(vectors: torch.Tensor) -> SoftPrompt:
    return SoftPrompt(Slots(((5, 6, 7),)), torch.zeros(3, 4), vectors)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_it_is_the_weighted_mean_of_all_steps(decay: float) -> None:
    averaging, total = Averaging(decay), None
    course = [torch.randn(3, 4, generator=torch.Generator().manual_seed(step)) for step in range(5)]
    for step, vectors in enumerate(course, start=1):
        total = averaging.updated(total, prompt_of(vectors))
        weights = torch.tensor([decay ** (step - 1 - i) for i in range(step)])
        expected = torch.stack([w * v for w, v in zip(weights, course[:step], strict=True)]).sum(0) / weights.sum()
        torch.testing.assert_close(averaging.of(prompt_of(vectors), total, step).vectors.detach(), expected)


def test_without_it_and_before_the_first_step_the_prompt_is_as_it_is() -> None:
    prompt = prompt_of(torch.ones(3, 4))
    assert Averaging(None).updated(None, prompt) is None
    assert Averaging(None).of(prompt, None, 3) is prompt
    assert Averaging(0.9).of(prompt, None, 0) is prompt


def test_what_is_validated_and_saved_is_the_average(
    tmp_path: Path, model_folder: Path, choice_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course: list[torch.Tensor] = []
    step = optimize.Training._step

    def watched(self: optimize.Training, *arguments: Any) -> None:
        step(self, *arguments)
        course.append(self.prompt.vectors.detach().clone())

    monkeypatch.setattr(optimize.Training, "_step", watched)
    update = optimize.Training._validate
    seen: dict[int, torch.Tensor] = {}

    def always_better(self: optimize.Training, *arguments: Any) -> None:
        self.state.best_accuracy = None
        update(self, *arguments)
        seen[self.state.step] = self.state.best_vectors

    monkeypatch.setattr(optimize.Training, "_validate", always_better)
    optimize.run(optimize_config(tmp_path, model_folder, choice_data, train__average=0.5, train__steps=4))
    expected = sum(0.5 ** (4 - i) * vectors for i, vectors in enumerate(course, start=1)) / sum(
        0.5**i for i in range(4)
    )
    torch.testing.assert_close(seen[4], expected)
    assert not torch.allclose(course[-1], expected)
    saved = load_artifact(tmp_path / "prompt.safetensors").prompt
    assert torch.equal(saved.vectors.detach(), seen[4])
