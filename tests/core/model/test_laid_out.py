"""A model whose layers lie on several devices: gradient, scores and answers are those of one on a single device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import dispatch_model
from tests.conftest import PLACEMENTS, make_network, make_tokenizer
from tests.core.passes.parity import encoded_rows, gradient_by, moved_prompt, plain_gradient

from embedgrad_cli.config.compose import Request, check_line
from embedgrad_cli.config.schema import LaunchConfig, ModelConfig
from embedgrad_cli.core.model import laid_out
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.model.load import load_model
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.scoring import Decoder
from embedgrad_cli.core.passes.trunk_check import why_no_trunk
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.errors import ModelError

PARTS = [
    *("model.embed_tokens", "model.rotary_emb", "model.layers.0", "model.layers.1", "model.norm", "lm_head"),
]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, tokenizer = tmp_path_factory.mktemp("model"), make_tokenizer()
    make_network("qwen2", len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def loaded(folder: Path, device_map: Any = None, dtype: Any = "float32") -> LanguageModel:
    launch = LaunchConfig(device_map=device_map)
    return load_model(ModelConfig(str(folder), None, dtype, "auto", False), CPU, launch)


def spread_out(folder: Path, dtype: Any = "float32") -> LanguageModel:
    """As on two devices: accelerate hooks every part and hands on what travels between them, here all on the CPU."""
    model = loaded(folder, dtype=dtype)
    model.network.set_attn_implementation("sdpa")
    network = dispatch_model(model.network, dict.fromkeys(PARTS, "cpu"), main_device="cpu", force_hooks=True)
    network.hf_device_map = {part: number // 3 for number, part in enumerate(PARTS)}
    return replace(model, network=network, reads_trunk_in_place=False)


def hooked(model: LanguageModel) -> int:
    return sum(hasattr(module, "_hf_hook") for module in model.network.modules())


@pytest.mark.parametrize("checkpoints", [False, True], ids=["", "checkpoints"])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_gradient_is_the_plain_one(placement: str, checkpoints: bool, folder: Path) -> None:
    whole, spread = loaded(folder), spread_out(folder)
    assert hooked(spread) > 4
    assert whole.has_plain_head
    assert not spread.has_plain_head, "its parts are not used directly"
    encoded = encoded_rows(whole, placement, times=2)
    expected = plain_gradient(whole, encoded, moved_prompt(encoded, whole))
    forward = Forward(spread, encoded.examples, checkpoint_activations=checkpoints)
    for _ in range(2):
        found = gradient_by(forward, encoded, moved_prompt(encoded, spread))
        assert (found - expected).norm() <= 1e-5 * expected.norm()
    assert hooked(spread) > 4, "the hooks are still there"
    assert why_no_trunk(spread, encoded.examples, moved_prompt(encoded, spread)) is None


def test_scores_and_answers_are_those_of_one_device(folder: Path) -> None:
    found = []
    for model in (loaded(folder), spread_out(folder)):
        encoded = encoded_rows(model, "both-sides", times=2)
        decoder = Decoder(Forward(model, encoded.examples), moved_prompt(encoded, model))
        answers = decoder.generate(encoded.examples, 12, 3)
        scores = decoder.score_choices(encoded.examples, [(5,), (7, 8, 9)])
        found.append(([[one.ids for one in of_row] for of_row in answers], scores))
    assert found[0][0] == found[1][0]
    assert torch.allclose(torch.tensor(found[0][1]), torch.tensor(found[1][1]), atol=1e-5)


@torch.no_grad()
def test_the_seed_is_the_text(folder: Path) -> None:
    model = spread_out(folder)
    encoded = encoded_rows(model, "system")
    seed = SoftPrompt.from_seed(encoded.slots, model)
    losses = Forward(model, encoded.examples).losses(
        encoded.examples, seed, Forward(model, encoded.examples).compute_trunk(seed)
    )
    whole = Forward(loaded(folder), encoded.examples, shares_trunk=False)
    assert torch.allclose(losses, whole.losses(encoded.examples, seed, whole.compute_trunk(seed)), atol=1e-5)


def test_half_precision_is_that_of_one_device(folder: Path) -> None:
    spread = spread_out(folder, "bfloat16")
    one = replace(loaded(folder, dtype="bfloat16"), reads_trunk_in_place=False)
    one.network.hf_device_map = spread.network.hf_device_map  # so its head is not used directly either
    encoded = encoded_rows(one, "system", times=2)
    found, expected = (
        gradient_by(Forward(model, encoded.examples), encoded, moved_prompt(encoded, model)) for model in (spread, one)
    )
    assert (found - expected).norm() <= 1e-5 * expected.norm()
    assert why_no_trunk(spread, encoded.examples, moved_prompt(encoded, spread)) is None


def test_one_device_takes_it_all(folder: Path) -> None:
    model = loaded(folder, "auto")
    assert hooked(model) == 0
    assert model.reads_trunk_in_place


def test_what_is_fetched_for_every_pass_is_refused(folder: Path) -> None:
    launch, config = LaunchConfig(device_map="auto"), ModelConfig(str(folder), None, "auto", "auto", False)
    for places in ({"model.layers.0": 0, "model.layers.1": "cpu"}, {"": "disk"}):
        network = SimpleNamespace(hf_device_map=places)
        with pytest.raises(ModelError, match=r"launch\.device_map=auto: the devices do not hold"):
            laid_out.check_laid_out(network, config, CPU, launch)


def test_accelerate_is_not_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laid_out, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'embedgrad\[sharded\]'"):
        loaded(folder, "auto")


REFUSED = {
    "launch.device_map=auto launch.processes=2": "launch.device_map: it is for one process",
    "launch.device_map=auto launch.tensor_parallel=2": "launch.device_map: it is for one process",
    "launch.device_map=auto device=cpu": "launch.device_map: it takes all GPUs, and device=cpu",
    "launch.device_map=auto model.quantization=nf4": "launch.device_map: it was not tried together",
    "launch.tensor_parallel=2 model.quantization=nf4": "launch.tensor_parallel: it was not tried together",
    "launch.tensor_parallel=2 launch.processes=2": "launch.processes: with launch.tensor_parallel",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_does_not_go_together(words: str) -> None:
    problems = check_line(Request("optimize", ["experiment=debug", *words.split()])).problems
    assert any(problem.startswith(REFUSED[words]) for problem in problems), problems
