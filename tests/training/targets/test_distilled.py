"""A teacher's answers as targets: their file, what a run does with them, and what it says of them in the end."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.artifacts import save_prompt
from tests.conftest import PLACEMENTS, SEEDS, make_model, optimize_config
from transformers import AutoTokenizer

from embedgrad_cli.commands import optimize
from embedgrad_cli.config.build import build
from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.answer_tokens import encode_choices
from embedgrad_cli.core.text.marked_tokens import Slots
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.errors import ArtifactError, DataError, UserError
from embedgrad_cli.evaluation.significance import paired_difference
from embedgrad_cli.storage.interrupts import Stopped, stop_if_asked
from embedgrad_cli.storage.results_record import Results
from embedgrad_cli.tasks.load import load
from embedgrad_cli.training.targets import distilled

TEACHER = "Tom has 3 apples and buys 12 more. positive Ana read 4 pages a day. negative"
DISTILL = {"objective__name": "distill", "objective__teacher": TEACHER, "objective__top": 20}
GENERATED = {"task__kind": "generation", "task__choices": None, "task__max_new_tokens": 6}

Make = Callable[..., OptimizeConfig]


@pytest.fixture
def make(tmp_path: Path, model_folder: Path, choice_data: Path) -> Make:
    """Configs of short runs that distil."""

    def config(name: str = "run", data: Path = choice_data, **changes: Any) -> OptimizeConfig:
        return optimize_config(tmp_path / name, model_folder, data, **{"train__steps": 4, **DISTILL, **changes})

    return config


def run(config: OptimizeConfig) -> Path:
    optimize.run(config)
    return Path(config.output_dir)


def interrupted(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    stop_if_asked()


def content(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "teacher.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{}, {**GENERATED, "objective__samples": 2, "objective__temperature": 1.0}], ids=["choice", "generation"]
)
def test_stopped_and_resumed_equals_uninterrupted(
    make: Make, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """Stopped after a step, and before that while the teacher answers, of which nothing is kept."""
    whole, parts = run(make("whole", **changes)), make("parts", **changes)
    with monkeypatch.context() as patch:
        patch.setattr(distilled, "likeliest_tokens", interrupted)
        with pytest.raises(Stopped):
            optimize.run(parts)
    assert not (Path(parts.output_dir) / "teacher.safetensors").exists()
    step = optimize.Training._step
    with monkeypatch.context() as patch:

        def stops(self: optimize.Training, *arguments: Any) -> None:
            step(self, *arguments)
            if self.state.step == 2:
                os.kill(os.getpid(), signal.SIGINT)

        patch.setattr(optimize.Training, "_step", stops)
        with pytest.raises(Stopped, match="step 2"):
            optimize.run(parts)
    written = (Path(parts.output_dir) / "teacher.safetensors").stat().st_mtime_ns
    folder = run(parts)
    assert (folder / "teacher.safetensors").stat().st_mtime_ns == written
    for file in ("prompt.safetensors", "checkpoint.safetensors", "teacher.safetensors"):
        assert (whole / file).read_bytes() == (folder / file).read_bytes(), file


@pytest.mark.slow
def test_it_answers_no_row_of_the_test(make: Make, tmp_path: Path, choice_data: Path) -> None:
    """Though their files have one name in several folders."""
    folders = tmp_path / "folders"
    for split in ("train", "validation", "test"):
        (folders / split).mkdir(parents=True)
        shutil.copy(choice_data / f"{split}.jsonl", folders / split / "data.jsonl")
    names = {f"task__split__{split}": [f"{split}/data"] for split in ("train", "validation", "test")}
    taught = [
        content(run(make(name, data, **changes)))
        for name, data, changes in (("flat", choice_data, {}), ("folders", folders, names))
    ]
    assert torch.equal(taught[0]["tokens"], taught[1]["tokens"])


@pytest.mark.slow
def test_labels_of_training_rows_change_nothing(make: Make, tmp_path: Path, choice_data: Path) -> None:
    others = tmp_path / "other-labels"
    shutil.copytree(choice_data, others)
    rows = [json.loads(line) for line in (choice_data / "train.jsonl").read_text().splitlines()]
    turned = [{**row, "label": 1 - row["label"]} for row in rows]
    (others / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in turned))
    first, second = run(make("a")), run(make("b", data=others))
    vectors = [load_file(folder / "checkpoint.safetensors")["vectors"] for folder in (first, second)]
    assert torch.equal(*vectors)
    gold = [
        load_file(run(make(name, data=data, objective__name="gold")) / "checkpoint.safetensors")["vectors"]
        for name, data in (("c", choice_data), ("d", others))
    ]
    assert not torch.equal(*gold)


@pytest.mark.slow
def test_the_loss_goes_down(make: Make) -> None:
    changes = {"train__steps": 30, "train__eval_every": 30, "optimizer__lr": 0.3, "trust_region__kind": "none"}
    folder = run(make(**changes))
    losses = [json.loads(line).get("loss") for line in (folder / "metrics.jsonl").read_text().splitlines()]
    course = [loss for loss in losses if loss is not None]
    assert course[-1] < 0.5 * course[0]


@pytest.mark.slow
def test_no_more_rows_are_answered_than_the_steps_can_read(make: Make) -> None:
    folder = run(make(train__steps=2, train__batch_size=5))
    assert len(content(folder)["lengths"]) == 10
    drawn = {**GENERATED, "objective__samples": 5, "objective__temperature": 1.0}
    folder = run(make("drawn", train__steps=2, train__batch_size=5, **drawn))
    assert len(content(folder)["lengths"]) <= 10


def test_every_choice_is_among_the_tokens_that_are_learnt(make: Make) -> None:
    """With top=1 the likeliest token alone would be, which may be no choice at all."""
    found = content(run(make(objective__top=1)))
    model = make_model()
    template = PromptTemplate(make().template, [SEEDS[0]], model.tokenizer, True)
    firsts = {ids[0] for ids in encode_choices(["negative", "positive"], template).ids}
    starts = [0, *found["lengths"].cumsum(0).tolist()[:-1]]
    for place in starts:
        assert firsts <= set(found["ids"][place].tolist())


def test_worked_examples_stand_behind_the_teacher_and_are_not_trained_on(make: Make) -> None:
    """Of a run that names no other teacher, the seed with them is it."""
    config = make(objective__teacher=None, objective__teacher_examples=3, train__steps=10)
    folder = run(config)
    results = Results.read(folder / "results.json")
    assert results.rendered is not None
    text = results.rendered["teacher"].text
    rows = load(config.task, config.seed).train
    shown = [row for row in rows if f"{row.query}\n{row.target}" in text]
    assert len(shown) == 3
    assert SEEDS[0] in text
    assert len(content(folder)["lengths"]) == len(rows) - 3


def test_the_report_is_what_the_answers_say(make: Make, model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(make())
    results = Results.read(folder / "results.json")
    found = results.distillation
    assert found is not None
    assert list(results.arms) == ["none", "seed", "teacher", "optimized"]
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    teacher, ours = ([line for line in lines if line["arm"] == arm] for arm in ("teacher", "optimized"))
    difference = paired_difference(*([line["correct"] for line in of_arm] for of_arm in (teacher, ours)))
    assert (found.difference, found.difference_ci95) == (difference.difference, difference.ci95)
    assert found.agreement == sum(a["output"] == b["output"] for a, b in zip(teacher, ours, strict=True)) / len(ours)
    assert found.seconds_per_answer == pytest.approx(sum(line["seconds"] for line in ours) / len(ours))
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    assert found.teacher_tokens == len(tokenizer(TEACHER)["input_ids"]) > found.prompt_tokens
    assert found.prompt_tokens == len(tokenizer(SEEDS[0])["input_ids"])
    saved = found.teacher_tokens_per_query - found.tokens_per_query
    assert saved == pytest.approx(found.teacher_tokens - found.prompt_tokens)
    gains = [results.arms[arm].accuracy - results.arms["seed"].accuracy for arm in ("teacher", "optimized")]
    assert found.gain_kept == (pytest.approx(gains[1] / gains[0]) if gains[0] > 0 else None)
    assert f"{found.teacher_tokens} tokens in the prompt's place" in capsys.readouterr().out
    optimize.run(make())
    assert f"{found.teacher_tokens} tokens in the prompt's place" in capsys.readouterr().out


@pytest.mark.slow
def test_an_artifact_as_teacher_is_tested_with_its_vectors(make: Make, tmp_path: Path) -> None:
    gold = run(make("gold", objective__name="gold", optimizer__lr=1.0))
    folder = run(make(objective__teacher=str(gold / "prompt.safetensors")))
    arms = [Results.read(f / "results.json").arms for f in (gold, folder)]
    assert arms[0]["optimized"].accuracy == arms[1]["teacher"].accuracy
    assert (f := Results.read(folder / "results.json").distillation) is not None
    assert f.teacher_tokens == f.prompt_tokens


@pytest.mark.slow
def test_a_teacher_that_has_changed_is_refused(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "teacher.txt"
    file.write_text(TEACHER)
    folder = run(make(objective__teacher=str(file)))
    (folder / "results.json").unlink()
    file.write_text(f"{TEACHER} Tom.")
    before = (folder / "checkpoint.safetensors").read_bytes()
    with pytest.raises(UserError, match=r"objective\.teacher: "):
        optimize.run(make(objective__teacher=str(file)))
    assert (folder / "checkpoint.safetensors").read_bytes() == before
    (folder / "teacher.safetensors").write_bytes(b"half")
    with pytest.raises(ArtifactError, match=r"teacher\.safetensors"):
        optimize.run(make(objective__teacher=str(file)))


def test_a_teacher_that_does_not_fit_is_refused_before_anything_is_written(make: Make) -> None:
    config = make(objective__teacher="apples " * 600)
    with pytest.raises(DataError, match=r"objective.teacher: .* \d+ tokens .* context is 512"):
        optimize.run(config)
    with pytest.raises(DataError, match=r"objective.teacher_examples=24"):
        optimize.run(make(objective__teacher_examples=24))
    two_places = make(template=PLACEMENTS["both-sides"], prompt__text=SEEDS)
    with pytest.raises(UserError, match=r"objective.teacher: .* 2 places"):
        optimize.run(two_places)
    assert not Path(config.output_dir).exists()


def test_an_artifact_of_another_model_is_refused(make: Make, tmp_path: Path) -> None:
    model, file = make_model("llama"), tmp_path / "other.safetensors"
    save_prompt(file, SoftPrompt.from_seed(Slots(((5, 6),)), model), model, make())
    config = make(objective__teacher=str(file))
    with pytest.raises(ArtifactError, match=r"other\.safetensors"):
        optimize.run(config)
    assert not Path(config.output_dir).exists()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"teacher": None}, "objective.teacher: "),
        ({"teacher": "none.txt"}, "objective.teacher: "),
        ({"teacher": __file__ + ".safetensors", "teacher_examples": 2}, "objective.teacher"),
        ({"samples": 2, "temperature": 1.0}, "objective.samples: "),
    ],
    ids=str,
)
def test_what_cannot_be_is_said_before_anything_is_loaded(make: Make, changes: dict[str, Any], key: str) -> None:
    plain = asdict(make())
    plain["objective"] |= changes
    _, problems = build("optimize", plain)
    assert problems
    assert all(problem.startswith(key) for problem in problems)
