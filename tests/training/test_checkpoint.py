"""A damaged checkpoint is an error that names it, before anything of it is taken over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.conftest import make_model

from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Slots
from embedgrad_cli.errors import ArtifactError
from embedgrad_cli.training.checkpoint import STATE, TrainingState, load_checkpoint, save_checkpoint


def prompt_and_optimizer() -> tuple[SoftPrompt, torch.optim.Optimizer]:
    prompt = SoftPrompt.from_seed(Slots(((5, 6, 7),)), make_model())
    return prompt, torch.optim.AdamW([prompt.vectors])


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    prompt, optimizer = prompt_and_optimizer()
    prompt.vectors.grad = torch.ones_like(prompt.vectors)
    optimizer.step()
    best, average = (prompt.vectors.detach().clone() for _ in range(2))
    state = TrainingState(best_vectors=best, average=average, step=1, accuracy=0.5)
    save_checkpoint(tmp_path / "checkpoint", state, prompt, optimizer)
    return tmp_path / "checkpoint"


def change(file: Path, tensors: dict[str, torch.Tensor], numbers: dict[str, Any]) -> None:
    with safe_open(file, framework="pt") as content:
        state = json.loads(content.metadata()[STATE])
    save_file({**load_file(file), **tensors}, file, {STATE: json.dumps({**state, **numbers})})


def test_it_comes_back(checkpoint: Path) -> None:
    prompt, optimizer = prompt_and_optimizer()
    state = load_checkpoint(checkpoint, prompt, optimizer)
    assert (state.step, state.accuracy, state.best_accuracy) == (1, 0.5, None)
    assert torch.equal(state.best_vectors, prompt.vectors)


@pytest.mark.parametrize(
    ("tensors", "numbers", "words"),
    [
        ({}, {"epoch": 3}, "epoch"),
        ({}, {"step": "one"}, "step"),
        ({}, {"best_accuracy": [1]}, "best_accuracy"),
        ({"best_vectors": torch.ones(2, 2)}, {}, "best_vectors"),
        ({"average": torch.ones(2)}, {}, "average"),
        ({"optimizer.exp_avg": torch.ones(1, 1)}, {}, "optimizer.exp_avg"),
        ({"vectors": torch.ones(3, 32, dtype=torch.bool)}, {}, "torch.bool"),
    ],
)
def test_what_is_damaged_is_named(
    checkpoint: Path, tensors: dict[str, torch.Tensor], numbers: dict[str, Any], words: str
) -> None:
    change(checkpoint, tensors, numbers)
    prompt, optimizer = prompt_and_optimizer()
    before = prompt.vectors.detach().clone()
    with pytest.raises(ArtifactError) as error:
        load_checkpoint(checkpoint, prompt, optimizer)
    assert words in str(error.value)
    assert str(checkpoint) in str(error.value)
    assert torch.equal(prompt.vectors, before)
    assert not optimizer.state
