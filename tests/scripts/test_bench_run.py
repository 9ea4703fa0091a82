"""The whole run beside PEFT's: both sides do the experiment that the overrides name, and say what came out."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import optimize_config

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

pytest.importorskip("peft")

import bench_run
from bench import peft_run
from embedgrad_cli.errors import UserError
from embedgrad_cli.tasks.load import load
from methods.peft_methods import prompt_tuning
from methods.problem import Problem


@pytest.mark.slow
@pytest.mark.long
def test_both_sides_do_the_same_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = [f"task.split.num_{split}=8" for split in ("train", "validation", "test")]
    steps = ["train.steps=2", "train.eval_every=2", "train.batch_size=4", "task.max_new_tokens=4"]
    overrides = ["task=reviews", "prompt=sentiment", "model=tiny", *counts, *steps]
    bench_run.main(["--json", str(tmp_path / "row.json"), *overrides])
    (row,) = json.loads((tmp_path / "row.json").read_text())
    assert row["ratio"] == pytest.approx(row["other_seconds"] / row["seconds"], rel=1e-2)
    assert row["rows"] == {"train": 8, "validation": 8, "test": 8}
    for side in ("", "other_"):
        assert sum(row[f"{side}phases"].values()) == pytest.approx(row[f"{side}seconds"], abs=0.1)
        assert {"loading", "training", "validation", "test", "rest"} <= set(row[f"{side}phases"])
        assert row[f"{side}cpu_seconds"] > 0
        assert row[f"{side}peak_mb"] > 100
        assert set(row[f"{side}arms"]) == {"none", "seed", "optimized"}
    assert all(accuracy * 8 == round(accuracy * 8) for accuracy in row["other_arms"].values()), "of eight rows"
    said = capsys.readouterr().out
    assert "8 train, 8 validation, 8 test; 2 steps" in said
    assert "optimized, accuracy" in said


def test_a_side_that_fails_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"exit code 2: .*task=nothing"):
        bench_run.main(["task=nothing"])
    assert "there is no 'nothing'" in capfd.readouterr().err, "and has said itself what is wrong"


def test_the_other_side_s_base_model_answers_without_the_virtual_tokens(model_folder: Path, choice_data: Path) -> None:
    """So that `none` and `seed` need no second model in its memory."""
    config = optimize_config(Path("unused"), model_folder, choice_data)
    problem = Problem(config, load(config.task, config.seed))
    learner = prompt_tuning(problem, "RANDOM")
    rows = learner.problem.splits.test
    tokens = torch.tensor([learner.model.tokenizer("Think.")["input_ids"]])
    with torch.no_grad():
        for parameter in learner.parameters:
            parameter.mul_(50)
    given: dict[str, Any] = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "do_sample": False}
    given |= {"max_new_tokens": 20}
    peft_run.accuracy(learner, learner.wrapped, learner.prompt_template, rows)
    answer = learner.wrapped.get_base_model().generate(**given)
    assert torch.equal(answer, problem.fresh_model().network.generate(**given))
    assert not torch.equal(answer, learner.wrapped.generate(**given)), "the virtual tokens would show"


def test_the_other_side_stops_where_ours_does(
    model_folder: Path, choice_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the stop strings of the task: reading on would take it longer for nothing."""
    config = optimize_config(Path("unused"), model_folder, choice_data)
    learner = prompt_tuning(Problem(config, load(config.task, config.seed)), "TEXT")
    rows, generate, written = learner.problem.splits.test[:1], learner.wrapped.generate, []

    def recording(**given: Any) -> torch.Tensor:
        output = generate(**given)
        written.append(learner.model.tokenizer.decode(output[0, given["input_ids"].shape[1] :]))
        return output

    monkeypatch.setattr(learner.wrapped, "generate", recording)
    for stop in (None, ["e"]):
        task = replace(config.task, kind="generation", max_new_tokens=40, stop=stop)
        at = replace(learner, problem=replace(learner.problem, config=replace(config, task=task)))
        peft_run.accuracy(at, learner.wrapped, learner.prompt_template, rows)
    whole, cut = written
    assert "e" in whole[:-10]
    assert cut == whole[: len(cut)]
    assert len(cut) < len(whole)
