"""docs/serving.md: the recipes that need no vLLM give the answer (`make test-serving` runs the others)."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from embedgrad_cli import assets
from embedgrad_cli.cli.main import main
from serving.recipes import blocks, run_block

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the one that the page describes: prompt.safetensors and MODEL."""
    folder = tmp_path_factory.mktemp("recipes")
    small = ["train.steps=10", "task.split.num_train=320", "task.split.num_validation=8", "task.split.num_test=8"]
    assert main(["optimize", *small, "train.eval_every=10", "device=cpu", f"output_dir={folder}/run"]) == 0
    shutil.copyfile(folder / "run/prompt.safetensors", folder / "prompt.safetensors")
    shutil.copytree(assets.resolve("embedded:tiny"), folder / "MODEL")
    return folder


@pytest.mark.parametrize("heading", ["transformers", "PEFT"])
def test_a_recipe_answers_the_question(heading: str, workplace: Path) -> None:
    found = blocks(heading)
    assert [language for language, _ in found] == ["bash", "python"]
    printed = [run_block(language, text, workplace) for language, text in found]
    assert "####" in printed[-1]  # the worked answer's last line
