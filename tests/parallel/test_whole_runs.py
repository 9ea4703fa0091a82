"""Promise 6, for whole runs: several processes give the result of one, stopped, killed and resumed in any number."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.commands.test_stop import assert_same, generation, metrics, steps_done, validations
from tests.conftest import PLACEMENTS, SEEDS, optimize_config, samples
from tests.parallel.processes import results, run

from embedgrad_cli.commands import optimize, run_job
from embedgrad_cli.config.schema import EvaluateConfig, OptimizeConfig
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.evaluation.answer_log import AnswerLog
from embedgrad_cli.parallel import environment
from embedgrad_cli.parallel.join import joined
from embedgrad_cli.storage.interrupts import StopRequest

pytestmark = [pytest.mark.slow, pytest.mark.long]
ROUNDING = 1e-5  # what three steps of Adam make of float32's


def assert_equal_but_for_rounding(a: Path, b: Path) -> None:
    tensors = [load_file(run / "prompt.safetensors") for run in (a, b)]
    assert tensors[0].keys() == tensors[1].keys()
    for name, tensor in tensors[0].items():
        assert torch.allclose(tensor, tensors[1][name], rtol=0, atol=ROUNDING * ("soft_prompt" in name)), name
    for first, second in zip(metrics(a), metrics(b), strict=True):
        assert first == pytest.approx(second, rel=1e-4, abs=ROUNDING)
    outputs = [
        [{key: line[key] for key in ("id", "arm", "output", "correct")} for line in samples(run)] for run in (a, b)
    ]
    assert outputs[0] == outputs[1]
    assert sorted(path.name for path in a.iterdir()) == sorted(path.name for path in b.iterdir())
    contents = [json.loads((run / "results.json").read_text()) for run in (a, b)]
    assert contents[0]["arms"].keys() == contents[1]["arms"].keys()
    assert contents[0]["digests"] == contents[1]["digests"]


def placed(output_dir: Path, model: Path, data: Path, placement: str) -> OptimizeConfig:
    """`both-sides` also generates its answers, so that a validation has a loss of its own."""
    two = placement == "both-sides"
    changes = {"template": PLACEMENTS[placement], "prompt__text": SEEDS if two else SEEDS[0], "train__steps": 3}
    return (generation if two else optimize_config)(output_dir, model, data, **changes)


def run_placements(folder: str, model: str, data: str) -> list[float]:
    with joined(None, "cpu"):
        return [optimize.run(placed(Path(folder, name), Path(model), Path(data), name)) for name in PLACEMENTS]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, choice_data: Path) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    run_placements(str(folder), str(model_folder), str(choice_data))
    return folder


@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_give_the_run_of_one(
    count: int, alone: Path, tmp_path: Path, model_folder: Path, choice_data: Path
) -> None:
    accuracies = results(count, run_placements, str(tmp_path), str(model_folder), str(choice_data))
    assert all(of_rank == accuracies[0] for of_rank in accuracies)
    for name in PLACEMENTS:
        assert_equal_but_for_rounding(alone / name, tmp_path / name)


@pytest.mark.parametrize("placement", ["system", "both-sides"])
def test_as_many_processes_give_the_same_bytes(
    placement: str, tmp_path: Path, model_folder: Path, choice_data: Path
) -> None:
    configs = [placed(tmp_path / name, model_folder, choice_data, placement) for name in ("first", "second")]
    for config in configs:
        results(2, optimize.run, config)
    assert_same(tmp_path / "first", tmp_path / "second")


Place = tuple[type, str, int]


def interrupted(
    config: OptimizeConfig | EvaluateConfig, place: Place, number: int | None, act: Callable[[], None]
) -> float | None:
    """Run until a rank (None: every one) comes to a method for the n-th time, and then acts."""
    owner, name, times = place
    method, calls = getattr(owner, name), []

    def counting(self: Any, *arguments: Any, **more: Any) -> Any:
        calls.extend([name] * (StopRequest._active is not None))  # not what is tried out before the run begins
        if len(calls) == times and number in (None, int(os.environ["RANK"])):
            act()
        return method(self, *arguments, **more)

    setattr(owner, name, counting)
    return run_job(config)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise RuntimeError("a fault of the code")


@pytest.mark.parametrize("number", [None, 1], ids=["all", "second"])
@pytest.mark.parametrize(
    ("place", "step"),
    [((Forward, "_accumulate", 3), 2), ((Forward, "summed_loss", 2), 2), ((AnswerLog, "add", 5), 3)],
    ids=["step", "validation", "test"],
)
def test_stopped_and_resumed_equals_uninterrupted(
    place: Place, step: int, number: int | None, alone: Path, tmp_path: Path, model_folder: Path, choice_data: Path
) -> None:
    config = placed(tmp_path / "parts", model_folder, choice_data, "both-sides")
    first, second = run(2, interrupted, config, place, number, stop)
    assert (first.error, first.exit_code) == ("Stopped", 130)
    assert (second.error, second.exit_code) == ("EndedElsewhere", 0)
    assert steps_done(tmp_path / "parts") == step
    assert not (tmp_path / "parts/results.json").exists()
    results(3, optimize.run, config)
    assert_equal_but_for_rounding(alone / "both-sides", tmp_path / "parts")


@pytest.mark.parametrize("number", [0, 1])
def test_killed_and_resumed_in_another_number(
    number: int, alone: Path, tmp_path: Path, model_folder: Path, choice_data: Path
) -> None:
    config = placed(tmp_path / "parts", model_folder, choice_data, "system")
    ended = run(2, interrupted, config, (Forward, "_accumulate", 3), number, die)
    assert ended[number].exit_code == -signal.SIGKILL
    survivor = ended[1 - number]
    assert survivor.error == ("EmbedgradError" if number else "EndedElsewhere")
    assert steps_done(tmp_path / "parts") >= 2
    assert len(validations(tmp_path / "parts")) >= 2
    optimize.run(config)
    assert_equal_but_for_rounding(alone / "system", tmp_path / "parts")


def test_a_fault_of_one_ends_all(tmp_path: Path, model_folder: Path, choice_data: Path) -> None:
    config = optimize_config(tmp_path / "run", model_folder, choice_data)
    first, second = run(2, interrupted, config, (Forward, "_accumulate", 5), 1, fail)
    assert (second.error, second.exit_code, second.message) == ("RuntimeError", 1, "a fault of the code")
    assert (first.error, first.exit_code) == ("EndedElsewhere", 0)


def test_a_finished_run_is_finished_for_all(tmp_path: Path, model_folder: Path, choice_data: Path) -> None:
    config = optimize_config(tmp_path / "run", model_folder, choice_data, train__steps=0)
    accuracy = optimize.run(config)
    before = (tmp_path / "run/results.json").read_bytes()
    assert results(2, optimize.run, config)[0] == accuracy
    assert (tmp_path / "run/results.json").read_bytes() == before


def test_a_folder_in_use_is_refused_by_the_first(tmp_path: Path, model_folder: Path, choice_data: Path) -> None:
    config = optimize_config(tmp_path / "run", model_folder, choice_data, task__data_dir=str(tmp_path / "nowhere"))
    first, second = run(2, optimize.run, config)
    assert (first.exit_code, second.exit_code) == (2, 0)
    assert "nowhere" in first.message
    assert not (tmp_path / "run").exists()


def test_rank_0_of_an_environment_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "1"}.items():
        assert environment.speaks()
        monkeypatch.setenv(name, value)
    assert not environment.speaks()
