"""`prompt.demonstrations`: a run whose seed shows rows of train, and what is made of its artifact afterwards."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import evaluate_config, optimize_config, samples

import embedgrad_cli
from embedgrad_cli.cli.main import main
from embedgrad_cli.commands import evaluate, optimize
from embedgrad_cli.config.dry_run import DryRun
from embedgrad_cli.config.schema import EvaluateConfig, OptimizeConfig, PromptConfig, SeedConfig
from embedgrad_cli.core.prompt.artifact import load_artifact
from embedgrad_cli.errors import DataError
from embedgrad_cli.exports.text_search import workbench
from embedgrad_cli.forecast.make import make_forecast
from embedgrad_cli.storage.interrupts import Stopped
from embedgrad_cli.storage.results_record import Results
from embedgrad_cli.tasks.demonstrations import load_for

TEXT = "Apples or pages?\n\n{demonstrations}\n\nNow this."


def run_config(folder: Path, model_folder: Path, data: Path, **changes: Any) -> OptimizeConfig:
    return optimize_config(folder, model_folder, data, prompt=PromptConfig(TEXT, 4), **changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, choice_data: Path) -> OptimizeConfig:
    config = run_config(tmp_path_factory.mktemp("trained"), model_folder, choice_data)
    optimize.run(config)
    return config


def file_of(config: OptimizeConfig) -> Path:
    return Path(config.output_dir) / "prompt.safetensors"


def by_row(folder: Path, arm: str) -> dict[str, dict[str, float]]:
    return {line["id"]: line["scores"] for line in samples(folder) if line["arm"] == arm}


def plain(trained: OptimizeConfig) -> OptimizeConfig:
    return load_for(trained)[0]


def test_no_demonstration_is_trained_on_or_tested(
    tmp_path: Path, model_folder: Path, choice_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, step = set[str](), optimize.Training._step

    def noted(self: optimize.Training, batch: list[Any], *more: Any) -> None:
        used.update(example.id for example in batch)
        step(self, batch, *more)

    monkeypatch.setattr(optimize.Training, "_step", noted)
    config = run_config(tmp_path, model_folder, choice_data)  # 6 batches of 8: every row of train more than once
    optimize.run(config)
    shown = {row.id for row in load_for(config)[1].demonstrations}
    every = {f"train:{number}" for number in range(24)}
    assert len(shown) == 4
    assert used == every - shown
    assert shown.isdisjoint(line["id"] for line in samples(tmp_path))
    report = Results.read(tmp_path / "results.json").data
    assert (set(report.demonstrations or []), report.counts) == (shown, {"train": 20, "validation": 8, "test": 12})


def test_step_0_is_the_text_with_the_rows_in_it(tmp_path: Path, model_folder: Path, choice_data: Path) -> None:
    config = run_config(tmp_path / "run", model_folder, choice_data, train__steps=0)
    optimize.run(config)
    text = plain(config).prompt.text
    assert isinstance(text, str)
    assert text.count("number") == 4
    typed = evaluate_config(config, tmp_path / "typed", prompt=SeedConfig(text), arms=["seed"])
    evaluate.run(typed)
    expected = by_row(tmp_path / "typed", "seed")
    for arm in ("seed", "optimized"):
        found = by_row(tmp_path / "run", arm)
        assert found.keys() == expected.keys()
        assert all(found[row] == pytest.approx(expected[row], rel=1e-5) for row in found)


def test_the_artifact_is_that_of_an_ordinary_text(trained: OptimizeConfig) -> None:
    metadata, resolved = load_artifact(file_of(trained)).metadata, plain(trained)
    assert metadata.seed.text == resolved.prompt.text
    assert metadata.settings["prompt"] == {"text": resolved.prompt.text, "demonstrations": None}
    shown = [(row.query, row.target) for row in load_for(trained)[1].demonstrations]
    assert [(row.query, row.target) for row in metadata.demonstrations or []] == shown
    written = (Path(trained.output_dir) / "config.yaml").read_text()
    assert "demonstrations: 4" in written
    assert "{demonstrations}" in written


def test_evaluate_repeats_the_test(trained: OptimizeConfig, tmp_path: Path) -> None:
    run = Path(trained.output_dir)
    assert main(["evaluate", f"artifact={file_of(trained)}", "device=cpu", f"output_dir={tmp_path}"]) == 0
    before, after = (Results.read(folder / "results.json") for folder in (run, tmp_path))
    assert (after.arms, after.comparison, after.test_hash) == (before.arms, before.comparison, before.test_hash)
    assert samples(tmp_path) == samples(run)
    assert after.overlap is None or after.overlap.num_rows == 0


def evaluation(trained: OptimizeConfig, folder: Path, **changes: Any) -> EvaluateConfig:
    return evaluate_config(plain(trained), folder, str(file_of(trained)), **changes)


@pytest.mark.parametrize("moved", [False, True], ids=["its own splits", "other splits"])
def test_demonstrations_are_rows_that_the_prompt_has_seen(moved: bool, trained: OptimizeConfig, tmp_path: Path) -> None:
    """Whether the splits are known by their hash, or every row is looked up."""
    changes = {"task__split__num_test": 6} if moved else {}
    with pytest.raises(DataError, match="24 of the 24 rows of the train split trained or selected"):
        evaluate.run(evaluation(trained, tmp_path / "a", split="train", **changes))
    evaluate.run(evaluation(trained, tmp_path / "b", split="train", task__overlap="allow", **changes))
    overlap = Results.read(tmp_path / "b/results.json").overlap
    assert overlap is not None
    assert overlap.num_rows == 24


def test_evaluate_draws_the_same_ones_without_an_artifact(trained: OptimizeConfig, tmp_path: Path) -> None:
    arms: dict[str, Any] = {"arms": ["none", "seed"], "prompt": SeedConfig(TEXT, 4)}
    config = evaluate_config(trained, tmp_path, **arms)
    evaluate.run(config)
    assert by_row(tmp_path, "seed") == by_row(Path(trained.output_dir), "seed")
    evaluate.run(config)  # finished, and the same
    evaluate.run(evaluate_config(trained, tmp_path, **arms, mode="regrade"))
    shown = {row.id for row in load_for(config)[1].demonstrations}
    assert shown
    on_train = evaluate_config(trained, tmp_path / "train", **arms, split="train")
    evaluate.run(on_train)
    assert {line["id"] for line in samples(tmp_path / "train")} == {f"train:{n}" for n in range(24)} - shown
    before = Results.read(tmp_path / "train/results.json")
    evaluate.run(evaluate_config(trained, tmp_path / "train", **arms, split="train", mode="regrade"))
    again = Results.read(tmp_path / "train/results.json")
    assert (again.num_skipped, again.digests, again.data) == (before.num_skipped, before.digests, before.data)


def test_stopped_and_resumed_equals_uninterrupted(
    trained: OptimizeConfig,
    tmp_path: Path,
    model_folder: Path,
    choice_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, step = run_config(tmp_path, model_folder, choice_data), optimize.Training._step

    def interrupted(self: optimize.Training, *arguments: Any) -> None:
        step(self, *arguments)
        if self.state.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(optimize.Training, "_step", interrupted)
        with pytest.raises(Stopped, match="step 3"):
            optimize.run(config)
    optimize.run(config)
    assert file_of(config).read_bytes() == file_of(trained).read_bytes()
    optimize.run(config)
    assert "finished; nothing was changed" in " ".join(capsys.readouterr().out.split())


def test_a_forecast_counts_them(trained: OptimizeConfig) -> None:
    forecast = make_forecast(trained, DryRun())
    (ids,) = load_artifact(file_of(trained)).metadata.seed.token_ids
    assert forecast.prompt_tokens == len(ids) > 4 * 4
    assert forecast.num_rows == (20, 8, 12)


def test_exports_know_nothing_of_them(trained: OptimizeConfig, tmp_path: Path) -> None:
    for name, more in (("embeds", []), ("text", [])):
        line = ["export", f"artifact={file_of(trained)}", f"format={name}", f"output_dir={tmp_path / name}", *more]
        assert main(line) == 0
    text = json.loads((tmp_path / "text/text.json").read_text())["texts"]["seed"]
    assert text == [plain(trained).prompt.text]
    assert main(["inspect", str(file_of(trained))]) == 0
    prompt = embedgrad_cli.load(file_of(trained))
    assert prompt is not None


def test_a_search_for_a_text_leaves_them_out(
    trained: OptimizeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, open_ = list[workbench.Measurement](), workbench.Measurement.open

    def noted(*arguments: Any) -> workbench.Measurement:
        opened.append(open_(*arguments))
        return opened[-1]

    monkeypatch.setattr(workbench.Measurement, "open", noted)
    line = ["export", f"artifact={file_of(trained)}", "format=text", "device=cpu", f"output_dir={tmp_path}"]
    assert main(line) == 0
    (measurement,) = opened
    assert measurement.splits.train == load_for(trained)[1].train
    assert len(measurement.splits.train) == 20


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prompt.demonstrations=100000"], "prompt.demonstrations=100000 rows"),
        (["prompt.demonstrations=-1"], "0 or more"),
        (["prompt=custom", "prompt.text='Look: {demonstrations}'"], "prompt.demonstrations=4"),
    ],
)
def test_what_is_wrong_is_said(words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["optimize", "task=reviews", "prompt=demonstrations", *words, f"output_dir={tmp_path}/run"]
    assert main(line) == 2
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_cfg_shows_what_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimize", "task=reviews", "prompt=demonstrations", "--cfg", "job"]) == 0
    shown = capsys.readouterr().out
    assert "{demonstrations}" in shown
    assert "demonstrations: 4" in shown


def test_tasks_show_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "show", "reviews", "prompt=demonstrations"]) == 0
    shown = capsys.readouterr().out
    assert "{demonstrations}" not in shown
    assert "[prompt: Answer as in these examples." in shown
