"""Promise 5 (the same answer twice, interrupted or not) and what a run leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tests.conftest import PLACEMENTS, SEEDS, optimize_config

from embedgrad_cli.commands import optimize
from embedgrad_cli.core.passes import forward, network_pass
from embedgrad_cli.core.prompt.artifact import load_artifact
from embedgrad_cli.core.text.template import PromptTemplate, Rendered
from embedgrad_cli.errors import ArtifactError, UserError
from embedgrad_cli.storage.interrupts import Stopped
from embedgrad_cli.storage.results_record import Results
from embedgrad_cli.tasks.load import load
from embedgrad_cli.terminal.report import took
from embedgrad_cli.training import trainer
from embedgrad_cli.training.trainer import NonFiniteLoss

FILES = [
    "prompt.safetensors",
    "checkpoint.safetensors",
    "metrics.jsonl",
    "results.json",
    "samples.jsonl",
    "config.yaml",
]


def validation_losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["validation_loss"] for row in rows if "validation_loss" in row]


def losses(run: Path) -> dict[int, float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def test_a_run_leaves_everything_behind(tmp_path: Path, model_folder: Path, choice_data: Path) -> None:
    accuracy = optimize.run(optimize_config(tmp_path / "run", model_folder, choice_data))
    for name in [*FILES, "embedgrad.log"]:
        assert (tmp_path / "run" / name).stat().st_size > 0, name
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["validation"]["accuracy"] == accuracy
    assert set(results["arms"]) == {"none", "seed", "optimized"}
    assert set(results["comparison"]) == {
        "baseline", "candidate", "difference", "ci95", "wins", "losses", "mcnemar_p",
    }  # fmt: skip
    assert results["num_examples"] == 12
    samples = [json.loads(line) for line in (tmp_path / "run/samples.jsonl").read_text().splitlines()]
    for arm, summary in results["arms"].items():
        own = [sample for sample in samples if sample["arm"] == arm]
        assert len(own) == 12
        assert sum(sample["correct"] for sample in own) == summary["correct"]
    assert sorted(losses(tmp_path / "run")) == [1, 2, 3, 4, 5, 6]
    with safe_open(tmp_path / "run/prompt.safetensors", framework="pt") as file:
        assert set(file.keys()) == {"soft_prompt", "seed_embedding", "seen_rows"}
        metadata = json.loads(file.metadata()["embedgrad"])
        assert file.get_tensor("soft_prompt").dtype == torch.float32
    assert metadata["seed"]["text"] == SEEDS[0]
    assert metadata["split_hash"] == results["split_hash"]


def test_where_the_time_went_is_written_and_said(
    tmp_path: Path, model_folder: Path, choice_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.perf_counter()
    optimize.run(optimize_config(tmp_path, model_folder, choice_data))
    whole = time.perf_counter() - started
    timing = Results.read(tmp_path / "results.json").timing
    assert timing is not None
    assert 0.8 * whole <= timing.total <= whole
    assert {name for name, seconds in timing.phases.items() if seconds == 0} <= {"answering"}  # targets are the data's
    assert set(timing.test) == {"none", "seed", "optimized"}
    steps = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert timing.training >= 0.99 * sum(row["seconds"] for row in steps if "loss" in row)
    assert took(timing) in capsys.readouterr().out.replace("\n", " ")


def test_what_was_mended_and_broken_and_what_changed_elsewhere_is_said(
    tmp_path: Path, model_folder: Path, choice_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = optimize_config(tmp_path, model_folder, choice_data, trust_region__kind="none", optimizer__lr=3.0)
    optimize.run(config)
    said = capsys.readouterr().out
    results, artifact = Results.read(tmp_path / "results.json"), load_artifact(tmp_path / "prompt.safetensors")
    found, comparison = results.elsewhere, results.comparison
    assert found is not None
    assert comparison is not None
    assert comparison.wins > 0
    (line,) = re.findall(r"^│ optimized .*", said, re.MULTILINE)
    assert re.search(rf"│ +{comparison.wins} │ +{comparison.losses} │", line)
    assert f"KL(seed ‖ optimized) is {found.kl:.3f} nats per token" in said
    assert f"{found.same_token:.1%} of {found.num_tokens} places" in said
    assert artifact.metadata.metrics.elsewhere == found
    optimize.run(config)
    assert f"KL(seed ‖ optimized) is {found.kl:.3f} nats per token" in capsys.readouterr().out, "of a finished run too"


def test_training_rows_are_rendered_once(
    tmp_path: Path, model_folder: Path, choice_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered, render = Counter[str](), PromptTemplate.render

    def counted(self: PromptTemplate, query: str) -> Rendered:
        rendered[query] += 1
        return render(self, query)

    monkeypatch.setattr(PromptTemplate, "render", counted)
    config = optimize_config(tmp_path, model_folder, choice_data)
    optimize.run(config)
    assert {rendered[row.query] for row in load(config.task, config.seed).train} == {1}


def test_choices_that_are_scored_need_no_pass_for_their_loss(
    tmp_path: Path, model_folder: Path, choice_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    summed_loss = forward.Forward.summed_loss

    def counted(self: forward.Forward, *work: Any) -> float:
        passes.append(1)
        return summed_loss(self, *work)

    monkeypatch.setattr(forward.Forward, "summed_loss", counted)
    optimize.run(optimize_config(tmp_path / "scores", model_folder, choice_data))
    assert not passes
    monkeypatch.setattr(trainer, "loss_by_scores", lambda *_: None)
    optimize.run(optimize_config(tmp_path / "passes", model_folder, choice_data))
    by_scores, by_passes = validation_losses(tmp_path / "scores"), validation_losses(tmp_path / "passes")
    assert len(passes) == len(by_passes) > 1
    assert by_scores == pytest.approx(by_passes, rel=1e-5)


@pytest.mark.slow
def test_the_loss_goes_down(tmp_path: Path, model_folder: Path, choice_data: Path) -> None:
    config = optimize_config(
        tmp_path,
        model_folder,
        choice_data,
        train__steps=40,
        train__eval_every=40,
        trust_region__kind="none",
        optimizer__lr=0.3,
    )
    optimize.run(config)
    course = losses(tmp_path)
    assert course[40] < 0.9 * course[1]


def test_two_runs_give_the_same_bytes(tmp_path: Path, model_folder: Path, choice_data: Path) -> None:
    for name in ("a", "b"):
        optimize.run(optimize_config(tmp_path / name, model_folder, choice_data))
    first, second = ((tmp_path / name / "prompt.safetensors").read_bytes() for name in ("a", "b"))
    assert first == second


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop_after", "changes"),
    [
        (1, {}),  # before, at and after the checkpoint of step 4
        (4, {}),
        (5, {}),
        (3, {"optimizer__name": "sgd"}),
        (3, {"objective__name": "choice", "objective__gold_weight": 0.5}),
        (3, {"train__average": 0.8, "train__token_dropout": 0.3}),
    ],
    ids=str,
)
def test_stopped_and_resumed_equals_uninterrupted(
    tmp_path: Path,
    model_folder: Path,
    choice_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop_after: int,
    changes: dict[str, Any],
) -> None:
    def config(name: str) -> object:
        return optimize_config(tmp_path / name, model_folder, choice_data, train__checkpoint_every=4, **changes)

    optimize.run(config("whole"))  # type: ignore[arg-type]
    step = optimize.Training._step
    with monkeypatch.context() as patch:

        def interrupted(self: optimize.Training, *arguments: object) -> None:
            step(self, *arguments)  # type: ignore[arg-type]
            if self.state.step == stop_after:
                os.kill(os.getpid(), signal.SIGINT)

        patch.setattr(optimize.Training, "_step", interrupted)
        with pytest.raises(Stopped, match=f"step {stop_after}"):
            optimize.run(config("parts"))  # type: ignore[arg-type]
    assert not (tmp_path / "parts/results.json").exists()
    optimize.run(config("parts"))  # type: ignore[arg-type]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for file in ("prompt.safetensors", "checkpoint.safetensors"):
        assert (whole / file).read_bytes() == (parts / file).read_bytes(), file
    assert losses(whole) == losses(parts)


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_last_checkpoint(
    tmp_path: Path, model_folder: Path, choice_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimize.run(optimize_config(tmp_path / "whole", model_folder, choice_data, train__checkpoint_every=2))
    killed = optimize_config(tmp_path / "killed", model_folder, choice_data, train__checkpoint_every=2)
    step = optimize.Training._step
    with monkeypatch.context() as patch:

        def dies(self: optimize.Training, *arguments: object) -> None:
            step(self, *arguments)  # type: ignore[arg-type]
            if self.state.step == 3:
                raise MemoryError

        patch.setattr(optimize.Training, "_step", dies)
        with pytest.raises(MemoryError):
            optimize.run(killed)
    with (tmp_path / "killed/metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # as far as the write came
    optimize.run(killed)
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    first, second = ((tmp_path / name / "prompt.safetensors").read_bytes() for name in ("whole", "killed"))
    assert first == second


def test_a_finished_run_changes_nothing(
    tmp_path: Path, model_folder: Path, choice_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = optimize_config(tmp_path, model_folder, choice_data)
    accuracy = optimize.run(config)
    before = {name: (tmp_path / name).read_bytes() for name in FILES}
    capsys.readouterr()
    assert optimize.run(config) == accuracy
    assert "finished; nothing was changed" in " ".join(capsys.readouterr().out.split())
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == before


def test_other_settings_do_not_resume(tmp_path: Path, model_folder: Path, choice_data: Path) -> None:
    optimize.run(optimize_config(tmp_path, model_folder, choice_data))
    with pytest.raises(UserError, match=r"train\.steps=7 \(was 6\)"):
        optimize.run(optimize_config(tmp_path, model_folder, choice_data, train__steps=7))


def test_a_damaged_checkpoint_is_named(tmp_path: Path, model_folder: Path, choice_data: Path) -> None:
    config = optimize_config(tmp_path, model_folder, choice_data)
    optimize.run(config)
    (tmp_path / "results.json").unlink()
    (tmp_path / "checkpoint.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(ArtifactError, match=r"checkpoint\.safetensors"):
        optimize.run(config)


def test_a_loss_that_is_not_finite_stops_the_run(
    tmp_path: Path, model_folder: Path, choice_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    plain = network_pass.frozen_head_losses

    def breaks(*arguments: object, **more: object) -> torch.Tensor:
        nonlocal calls
        calls += torch.is_grad_enabled()
        loss = plain(*arguments, **more)  # type: ignore[arg-type]
        return loss * float("nan") if calls > 5 else loss

    monkeypatch.setattr(network_pass, "frozen_head_losses", breaks)
    with pytest.raises(NonFiniteLoss, match=r"step \d.*nan.*train:\d+.*prompt\.safetensors"):
        optimize.run(optimize_config(tmp_path, model_folder, choice_data))
    assert (tmp_path / "prompt.safetensors").exists()
    assert not (tmp_path / "results.json").exists()


@pytest.mark.parametrize("number", [1, 2])
def test_a_validation_loss_that_is_not_finite_stops_the_run(
    tmp_path: Path, model_folder: Path, choice_data: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real, calls = trainer.loss_by_scores, list[None]()

    def breaks(*arguments: Any) -> float | None:
        calls.append(None)
        return float("nan") if len(calls) == number else real(*arguments)

    monkeypatch.setattr(trainer, "loss_by_scores", breaks)
    with pytest.raises(NonFiniteLoss, match=r"validation after step \d.*nan") as error:
        optimize.run(optimize_config(tmp_path, model_folder, choice_data))
    assert ("is kept in" in str(error.value)) == (tmp_path / "prompt.safetensors").exists() == (number > 1)
    lines = (tmp_path / "metrics.jsonl").read_text() if number > 1 else ""
    assert "NaN" not in lines


def test_patience_stops_early(tmp_path: Path, model_folder: Path, choice_data: Path) -> None:
    config = optimize_config(
        tmp_path,
        model_folder,
        choice_data,
        train__steps=50,
        train__eval_every=1,
        train__patience=2,
        optimizer__lr=1e-12,
        trust_region__kind="none",
    )
    optimize.run(config)
    assert json.loads((tmp_path / "results.json").read_text())["steps"] < 50


def test_generation_with_a_prompt_after_the_query(tmp_path: Path, model_folder: Path, choice_data: Path) -> None:
    config = optimize_config(
        tmp_path,
        model_folder,
        choice_data,
        task__kind="generation",
        task__choices=None,
        task__labels=None,
        task__grader="last-number",
        template=PLACEMENTS["both-sides"],
        prompt__text=SEEDS,
        train__steps=2,
    )
    optimize.run(config)
    with safe_open(tmp_path / "prompt.safetensors", framework="pt") as file:
        assert {"soft_prompt.0", "soft_prompt.1"} < set(file.keys())


@pytest.mark.slow
def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """Two real commands in one folder: the second ends with exit code 2 and names the first, which goes on."""
    line = [sys.executable, "-m", "embedgrad_cli.cli.main"]
    line += ["optimize", f"output_dir={tmp_path}/run", "train.steps=9999"]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        try:
            until = time.monotonic() + 120
            while not (tmp_path / "run/metrics.jsonl").exists():
                assert first.poll() is None
                assert time.monotonic() < until
                time.sleep(0.1)
            second = subprocess.run(line, capture_output=True, text=True, timeout=120)
            assert second.returncode == 2
            assert f"process {first.pid} " in second.stderr
            assert first.poll() is None
        finally:
            first.kill()
