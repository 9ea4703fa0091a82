"""Artifact and results as version 0.1.0 wrote them, on the embedded model with one worked example: they still load.

That version kept the template with the worked example in it beside the one without, and did not say how many rows the
test had.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from embedgrad_cli.cli.main import main
from embedgrad_cli.comparison.runs import read_run
from embedgrad_cli.core.prompt.artifact import load_artifact, recorded_template
from embedgrad_cli.storage.results_record import Results, Timing
from embedgrad_cli.storage.run_directory import read_settings

OLD_RUN = Path(__file__).parent / "old_run"
ARTIFACT = OLD_RUN / "prompt.safetensors"


def test_the_artifact() -> None:
    artifact = load_artifact(ARTIFACT)
    metadata = artifact.metadata
    assert metadata.metrics.test is not None
    assert metadata.metrics.test.num_examples is None
    assert metadata.worked_examples is None
    assert metadata.settings["task"]["fewshot"] == 1
    written = recorded_template(metadata).messages[-1].content
    assert written.endswith("{query}")
    assert "####" in written, "the worked example is in the template"
    assert "####" not in metadata.settings["template"]["messages"][-1]["content"]


def test_the_results() -> None:
    results = Results.read(OLD_RUN / "results.json")
    assert results.comparison is not None
    assert results.num_examples == 8
    assert read_run(OLD_RUN).compared == ["seed", "optimized"]
    assert results.elsewhere is None


def test_a_timing_without_what_later_versions_measure() -> None:
    phases = {"reading": 1.0, "loading": 2.0, "encoding": 0.5, "checking": 0.25, "training": 4.0, "validation": 1.0}
    timing = Timing.from_json({**phases, "test": {"none": 1.0, "seed": 2.0}, "grading": 0.25}, "results.json")
    assert timing.phases == {**phases, "test": 3.0, "grading": 0.25}
    assert timing.total == 12.0


@pytest.mark.parametrize(
    "line",
    [
        ["inspect", str(ARTIFACT)],
        ["compare", str(OLD_RUN)],
        ["evaluate", f"artifact={ARTIFACT}", "arms=[seed,optimized]", "output_dir=out"],
        ["export", f"artifact={ARTIFACT}", "format=embeds", "output_dir=out"],
        ["export", f"artifact={ARTIFACT}", "format=hub", "output_dir=out"],
    ],
    ids=lambda line: " ".join(line[:1] + line[2:3]),
)
def test_every_command_takes_it(line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(line) == 0


def test_an_evaluation_repeats_its_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", f"artifact={ARTIFACT}", "output_dir=out", "log_level=info"]) == 0
    old, new = Results.read(OLD_RUN / "results.json"), Results.read(tmp_path / "out/results.json")
    known_then = {name: replace(arm, endings=None) for name, arm in new.arms.items()}
    assert known_then == old.arms
    assert new.test_hash == old.test_hash
    assert "another template" not in (tmp_path / "out/embedgrad.log").read_text()


def test_it_was_trained_on_gold_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(OLD_RUN, tmp_path / "run")
    settings = read_settings(tmp_path / "run" / "config.yaml")
    assert settings["objective"]["name"] == "gold"
    words = ["experiment=debug", "task.fewshot=1", "train.steps=1", "objective.gold_weight=1"]
    assert main(["optimize", *words, f"output_dir={tmp_path}/run"]) == 2
    assert "objective.gold_weight" in capsys.readouterr().err


def test_a_finished_run_is_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(OLD_RUN, tmp_path / "run")
    words = ["experiment=debug", "task.fewshot=1", "train.steps=1"]
    assert main(["optimize", *words, f"output_dir={tmp_path}/run"]) == 0
    assert "is finished; nothing was changed" in capsys.readouterr().out
