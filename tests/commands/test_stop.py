"""A stop in the middle of anything, a validation or the test included: the resumed run is the uninterrupted one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from tests.conftest import optimize_config, samples
from tests.stops import run_until

from embedgrad_cli.commands import optimize
from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.generation import Generation
from embedgrad_cli.errors import EmbedgradError
from embedgrad_cli.evaluation.answer_log import AnswerLog
from embedgrad_cli.storage.files import write_yaml
from embedgrad_cli.storage.interrupts import Stopped, StopRequest
from embedgrad_cli.training.trainer import Training

Place = tuple[type, str, int]  # a method, and the number of its call within which the signal comes
LOSS, GRADIENT, TOKEN = (Forward, "losses"), (Forward, "_accumulate"), (Generation, "_choose")
ANSWERS = (AnswerLog, "add")


def generation(output_dir: Path, model: Path, data: Path, **changes: Any) -> OptimizeConfig:
    """Answers of up to 8 tokens, in batches of 4, at steps 0, 2 and 3; then the test."""
    task = {"task__kind": "generation", "task__choices": None, "task__labels": None, "task__grader": "last-number"}
    plain = {**task, "evaluation__batch_size": 4, "train__steps": 3, "train__checkpoint_every": 3}
    return optimize_config(output_dir, model, data, **{**plain, **changes})


def signal_at(place: Place, patch: pytest.MonkeyPatch) -> None:
    owner, name, number = place
    method, calls = getattr(owner, name), []

    def signalling(self: Any, *arguments: Any, **more: Any) -> Any:
        calls.extend([name] * (StopRequest._active is not None))  # not what is tried out before the run begins
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return method(self, *arguments, **more)

    patch.setattr(owner, name, signalling)


def metrics(run: Path) -> list[dict[str, Any]]:
    file = run / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def validations(run: Path) -> list[dict[str, Any]]:
    return [row for row in metrics(run) if "validation_loss" in row]


def steps_done(run: Path) -> int:
    with safe_open(run / "checkpoint.safetensors", framework="pt") as file:
        return json.loads(file.metadata()["embedgrad_checkpoint"])["step"]


def assert_same(a: Path, b: Path) -> None:
    for name in ("prompt.safetensors", "checkpoint.safetensors"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    results = [json.loads((run / "results.json").read_text()) for run in (a, b)]
    for content in results:
        content.pop("peak_memory_bytes")  # of a process
        content.pop("timing")
    assert results[0] == results[1]
    assert samples(a) == samples(b)
    assert metrics(a) == metrics(b)
    assert sorted(path.name for path in a.iterdir()) == sorted(path.name for path in b.iterdir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, choice_data: Path) -> Path:
    """The run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("stop") / "whole"
    optimize.run(generation(folder, model_folder, choice_data))
    return folder


@pytest.mark.parametrize(
    ("place", "step", "is_due"),
    [
        # Losses: two (of 4 rows each) per validation at steps 0, 2 and 3, one per step.
        ((*TOKEN, 3), 0, True),
        ((*LOSS, 1), 0, True),
        ((*GRADIENT, 2), 1, False),
        ((*LOSS, 5), 2, True),
        ((*LOSS, 8), 3, True),
    ],
    ids=["seed-answers", "seed-loss", "step", "validation", "last-validation"],
)
def test_stopped_in_training(
    whole: Path,
    tmp_path: Path,
    model_folder: Path,
    choice_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: Place,
    step: int,
    is_due: bool,
) -> None:
    config = generation(tmp_path / "parts", model_folder, choice_data)
    with monkeypatch.context() as patch:
        signal_at(place, patch)
        with pytest.raises(Stopped):
            optimize.run(config)
    assert steps_done(tmp_path / "parts") == step
    validated = [row["step"] for row in validations(tmp_path / "parts")]
    assert validated == [done for done in (0, 2, 3) if done < step or (done == step and not is_due)]
    optimize.run(config)
    assert_same(whole, tmp_path / "parts")


def test_a_loss_scale_that_was_made_smaller_stays_so(
    tmp_path: Path, model_folder: Path, choice_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a gradient in float16 loses at its lower end depends on it."""
    whole, parts = (
        optimize_config(tmp_path / name, model_folder, choice_data, model__dtype="float16", train__steps=4)
        for name in ("whole", "parts")
    )
    step = Training._step

    def overflows_at_first(self: Training, *arguments: Any) -> None:
        if self.state.step == 0:
            self.forward.loss_scale = 1.0 / 64
        step(self, *arguments)

    monkeypatch.setattr(Training, "_step", overflows_at_first)
    optimize.run(whole)
    run_until(2, parts)
    optimize.run(parts)
    assert_same(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_stopped_in_the_test(
    whole: Path,
    tmp_path: Path,
    model_folder: Path,
    choice_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    config, validations = generation(tmp_path / "parts", model_folder, choice_data), 3
    with monkeypatch.context() as patch:
        signal_at((*ANSWERS, validations + number), patch)
        with pytest.raises(Stopped):
            optimize.run(config)
    kept = (tmp_path / "parts/answers.partial.jsonl").read_text().splitlines()
    assert len(kept) == 12 * number, "a batch is an arm's 12 rows"
    added: list[int] = []
    add = AnswerLog.add

    def counting(self: AnswerLog, batch: Any) -> None:
        added.append(len(batch))
        add(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(AnswerLog, "add", counting)
        optimize.run(config)
    assert sum(added) == 12 * (3 - number), "no answer is given twice, and nothing is validated again"
    assert_same(whole, tmp_path / "parts")


def test_stopped_while_it_looks_elsewhere(
    whole: Path, tmp_path: Path, model_folder: Path, choice_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = generation(tmp_path / "parts", model_folder, choice_data)
    with monkeypatch.context() as patch:
        signal_at((Forward, "target_states", 3), patch)
        with pytest.raises(Stopped):
            optimize.run(config)
    assert not (tmp_path / "parts/results.json").exists()
    optimize.run(config)
    assert json.loads((whole / "results.json").read_text())["elsewhere"]["kl"] > 0
    assert_same(whole, tmp_path / "parts")


def test_who_watches_the_validations_may_end_a_run_that_can_go_on(
    whole: Path, tmp_path: Path, model_folder: Path, choice_data: Path
) -> None:
    config, seen = generation(tmp_path / "parts", model_folder, choice_data), list[tuple[int, float]]()

    class Enough(EmbedgradError):
        pass

    def watch(step: int, accuracy: float) -> None:
        seen.append((step, accuracy))
        if step == 2:
            raise Enough

    with pytest.raises(Enough):
        optimize.run(config, None, watch)
    assert seen == [(row["step"], row["validation_accuracy"]) for row in validations(tmp_path / "parts")]
    assert steps_done(tmp_path / "parts") == 2
    optimize.run(config)
    assert_same(whole, tmp_path / "parts")


def test_a_resumed_run_shows_the_best_so_far(
    tmp_path: Path,
    model_folder: Path,
    choice_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = optimize_config(tmp_path, model_folder, choice_data)
    with monkeypatch.context() as patch:
        signal_at((*GRADIENT, 3), patch)
        with pytest.raises(Stopped):
            optimize.run(config)
    known = [row["validation_accuracy"] for row in validations(tmp_path)]
    assert max(known) > 0
    capsys.readouterr()
    optimize.run(config)
    shown = re.findall(r"step ./6 .*validation ([\d.]+)% \(best ([\d.]+)%\)", capsys.readouterr().err)
    assert shown[0] == (f"{100 * known[-1]:.1f}", f"{100 * max(known):.1f}")


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["validation", "test"])
def test_a_real_process_ends_in_time(tmp_path: Path, model_folder: Path, choice_data: Path, phase: str) -> None:
    """Answers of 400 tokens, one at a time: a validation, and a test, of minutes."""
    long = {"evaluation__batch_size": 1, "task__max_new_tokens": 400}
    split = {"task__split__num_validation": 1} if phase == "test" else {}
    config = generation(tmp_path / "run", model_folder, choice_data, **long, **split, train__steps=1)
    write_yaml(tmp_path / "mine.yaml", {"defaults": ["optimize", "_self_"], **asdict(config)})
    command = [
        sys.executable,
        "-m",
        "embedgrad_cli.cli.main",
        "optimize",
        f"--config-dir={tmp_path}",
        "--config-name=mine",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        log = tmp_path / "run/embedgrad.log"
        mark = "from step 0" if phase == "validation" else "step 1: validation accuracy"
        while not (log.exists() and mark in log.read_text()):
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            time.sleep(0.1)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert time.monotonic() - asked < 10
    is_tested = phase == "test"
    assert steps_done(tmp_path / "run") == is_tested
    assert len(validations(tmp_path / "run")) == 2 * is_tested
    assert not (tmp_path / "run/results.json").exists()
