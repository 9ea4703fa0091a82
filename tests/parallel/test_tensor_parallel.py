"""A model whose layers two processes divide: its gradient, whole runs, and how they end together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import PLACEMENTS, evaluate_config, make_network, make_tokenizer, optimize_config
from tests.core.passes.parity import encoded_rows, moved_prompt, plain_gradient
from tests.parallel.processes import results, run
from tests.parallel.test_whole_runs import assert_equal_but_for_rounding, die, fail, interrupted, placed, stop

from embedgrad_cli.commands import evaluate, optimize
from embedgrad_cli.config.schema import LaunchConfig, ModelConfig
from embedgrad_cli.core.kernels.packed_linear import float32_copy
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.model.load import load_model
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.trunk_check import why_no_trunk
from embedgrad_cli.errors import ModelError
from embedgrad_cli.evaluation.answer_log import AnswerLog
from embedgrad_cli.parallel.join import joined
from embedgrad_cli.parallel.ranks import Ranks
from embedgrad_cli.training.gradient import set_gradient

pytestmark = [pytest.mark.slow, pytest.mark.long]
CPU, TWO = torch.device("cpu"), LaunchConfig(tensor_parallel=2)
FAMILIES = ["qwen2", "qwen3", "llama", "gemma"]
REFUSED = {"gpt2": "no plan", "mixtral": "parts that were not tried", "gemma2": "heads"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Tiny models of some families; that of Gemma 2 with heads that two processes cannot share."""
    tokenizer, made = make_tokenizer(), {}
    for name in [*FAMILIES, *REFUSED]:
        made[name] = str(tmp_path_factory.mktemp(name))
        network: Any = make_network(name, len(tokenizer))
        if name == "gemma2":
            network = type(network)(network.config.__class__(**{**network.config.to_dict(), "num_key_value_heads": 1}))
        network.save_pretrained(made[name])
        tokenizer.save_pretrained(made[name])
    return made


def loaded(folder: str, launch: LaunchConfig | None = None, dtype: Any = "float32") -> LanguageModel:
    return load_model(ModelConfig(folder, None, dtype, "auto", False), CPU, launch)


def gradients(model: LanguageModel, ranks: Ranks) -> dict[str, Any]:
    found: dict[str, Any] = {"in place": model.reads_trunk_in_place, "plain head": model.has_plain_head}
    for placement in PLACEMENTS:
        encoded = encoded_rows(model, placement, times=2)
        prompt = moved_prompt(encoded, model)
        loss = set_gradient(Forward(model, encoded.examples), encoded.examples, prompt, 4, ranks)
        assert prompt.vectors.grad is not None
        found[placement] = [loss.item(), prompt.vectors.grad.tolist()]
    found["why no trunk"] = why_no_trunk(model, encoded.examples, prompt)
    return found


def all_gradients(folders: dict[str, str], dtype: str) -> dict[str, Any]:
    with joined(None, "cpu", 2) as ranks:
        found: dict[str, Any] = {name: gradients(loaded(folders[name], TWO, dtype), ranks) for name in FAMILIES}
        for name in REFUSED:
            with pytest.raises(ModelError) as caught:
                loaded(folders[name], TWO)
            found[name] = str(caught.value)
        return found


@pytest.fixture(scope="module")
def divided(folders: dict[str, str]) -> list[dict[str, Any]]:
    return results(2, all_gradients, folders, "float32")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_is_the_plain_one(family: str, folders: dict[str, str], divided: list[dict[str, Any]]) -> None:
    model, found = loaded(folders[family]), divided[0][family]
    assert divided[1][family] == found, "to the last bit"
    assert found["why no trunk"] is None
    assert (found["in place"], found["plain head"]) == (model.reads_trunk_in_place, model.has_plain_head)
    for placement in PLACEMENTS:
        encoded = encoded_rows(model, placement, times=2)
        expected = plain_gradient(model, encoded, moved_prompt(encoded, model))
        _, gradient = found[placement]
        assert (torch.tensor(gradient) - expected).norm() <= 1e-5 * expected.norm(), placement


@pytest.mark.parametrize("family", REFUSED)
def test_what_cannot_be_divided_is_refused(family: str, divided: list[dict[str, Any]]) -> None:
    for message in (one[family] for one in divided):
        assert "launch.tensor_parallel=2" in message
        assert REFUSED[family] in message


def half_gradients(folder: str) -> dict[str, Any]:
    with joined(None, "cpu", 2) as ranks:
        return gradients(loaded(folder, TWO, "bfloat16"), ranks)


def test_half_precision_is_no_farther_from_float32(folders: dict[str, str]) -> None:
    first, second = results(2, half_gradients, folders["qwen2"])
    assert first == second, "to the last bit"
    assert first["why no trunk"] is None
    assert first["in place"]
    half = loaded(folders["qwen2"], dtype="bfloat16")
    exact = replace(half, network=float32_copy(half.network))
    errors = []
    for placement in PLACEMENTS:
        encoded = encoded_rows(exact, placement, times=2)
        expected = plain_gradient(exact, encoded, moved_prompt(encoded, exact))
        plain, found = plain_gradient(half, encoded, moved_prompt(encoded, half)), torch.tensor(first[placement][1])
        errors.append([float((one - expected).norm() / expected.norm()) for one in (found, plain)])
    # Of all placements together: what two processes give is rounded before it is added, and so differs by itself.
    assert sum(found for found, _ in errors) <= sum(plain for _, plain in errors), errors
    assert all(found <= 1.25 * plain for found, plain in errors), errors


def in_two(config: Any) -> Any:
    return replace(config, launch=TWO)


def run_both(folder: str, model: str, data: str, launch: LaunchConfig) -> list[float | None]:
    """Vectors in two slots with generated answers, vectors before scored choices, and an evaluation of these."""
    with joined(None, "cpu", launch.tensor_parallel):
        configs = [placed(Path(folder, name), Path(model), Path(data), name) for name in ("both-sides", "system")]
        accuracies: list[float | None] = [optimize.run(replace(config, launch=launch)) for config in configs]
        artifact = str(Path(folder, "system/prompt.safetensors"))
        config = evaluate_config(configs[1], Path(folder, "evaluation"), artifact)
        return [*accuracies, evaluate.run(replace(config, launch=launch))]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, choice_data: Path) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    run_both(str(folder), str(model_folder), str(choice_data), LaunchConfig())
    return folder


def test_a_divided_model_gives_the_runs_of_a_whole_one(
    alone: Path, tmp_path: Path, model_folder: Path, choice_data: Path
) -> None:
    first, second = results(2, run_both, str(tmp_path), str(model_folder), str(choice_data), TWO)
    assert first[:2] == second[:2]
    assert second[2] is None, "the first one grades"
    for name in ("both-sides", "system"):
        assert_equal_but_for_rounding(alone / name, tmp_path / name)
    outcomes = [(path / "evaluation/results.json").read_text() for path in (alone, tmp_path)]
    assert outcomes[0][:500] == outcomes[1][:500]


@pytest.mark.parametrize("number", [0, 1])
def test_stopped_and_resumed_by_a_whole_model(
    number: int, alone: Path, tmp_path: Path, model_folder: Path, choice_data: Path
) -> None:
    config = placed(tmp_path / "run", model_folder, choice_data, "both-sides")
    place = (AnswerLog, "add", 5) if number else (Forward, "_accumulate", 3)
    ended = run(2, interrupted, in_two(config), place, number, stop)
    assert [one.error for one in ended] == ["Stopped", "EndedElsewhere"], ended
    optimize.run(config)
    assert_equal_but_for_rounding(alone / "both-sides", tmp_path / "run")


def test_one_that_fails_alone_says_so(tmp_path: Path, model_folder: Path, choice_data: Path) -> None:
    config = in_two(optimize_config(tmp_path / "run", model_folder, choice_data))
    first, second = run(2, interrupted, config, (Forward, "_accumulate", 3), 1, fail)
    assert (second.error, second.message) == ("RuntimeError", "a fault of the code")
    assert first.error == "EndedElsewhere", first
    first, second = run(2, interrupted, config, (Forward, "_accumulate", 3), None, fail)
    assert (first.error, second.error) == ("RuntimeError", "EndedElsewhere"), "of what fails alike the first one speaks"


@pytest.mark.parametrize("number", [0, 1])
def test_one_that_is_killed_ends_all(number: int, tmp_path: Path, model_folder: Path, choice_data: Path) -> None:
    config = in_two(optimize_config(tmp_path / "run", model_folder, choice_data))
    ended = run(2, interrupted, config, (Forward, "_accumulate", 3), number, die)
    assert ended[1 - number].error == ("EmbedgradError" if number else "EndedElsewhere"), ended
