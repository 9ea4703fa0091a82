"""What each stage holds, by settings that make it more or less."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import PLACEMENTS, optimize_config

from embedgrad_cli.core.model.unloaded import load_unloaded
from embedgrad_cli.forecast.changes import find_changes
from embedgrad_cli.forecast.memory import ACTIVATIONS, ANSWERS, START, TRAINING, Place, moments_of, weights_of
from embedgrad_cli.forecast.workload import Workload
from embedgrad_cli.tasks.load import load

GPU = Place("cuda", None, 0)


def work_of(model_folder: Path, choice_data: Path, **changes: Any) -> Workload:
    config = optimize_config(Path("nowhere"), model_folder, choice_data, **changes)
    return Workload.of(config, load_unloaded(config.model, "cuda"), load(config.task, config.seed), True)


def test_every_stage_holds_the_weights_and_the_step_its_trunk(model_folder: Path, choice_data: Path) -> None:
    work = work_of(model_folder, choice_data)
    moments = moments_of(work, GPU)
    assert list(moments) == [START, TRAINING, ANSWERS]
    assert {moment.parts["weights"] for moment in moments.values()} == {weights_of(work.model)}
    assert moments[TRAINING].parts["trunk"] > 0
    assert moments[TRAINING].parts[ACTIVATIONS] > moments[ANSWERS].parts.get(ACTIVATIONS, 0)
    assert list(moments_of(work_of(model_folder, choice_data, train__steps=0), GPU)) == [START, ANSWERS]


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        (TRAINING, {"train__checkpoint_activations": True}),
        (TRAINING, {"train__micro_batch_size": 1}),
        (ANSWERS, {"evaluation__batch_size": 1}),
    ],
)
def test_a_setting_that_saves_memory_saves_it(
    stage: str, changes: dict[str, Any], model_folder: Path, choice_data: Path
) -> None:
    before = moments_of(work_of(model_folder, choice_data), GPU)[stage].total
    assert moments_of(work_of(model_folder, choice_data, **changes), GPU)[stage].total < before


def test_half_precision_halves_the_weights_and_is_tried_out_in_float32(model_folder: Path, choice_data: Path) -> None:
    whole = work_of(model_folder, choice_data)
    half = work_of(model_folder, choice_data, model__dtype="bfloat16")
    assert weights_of(half.model) == pytest.approx(weights_of(whole.model) / 2, rel=0.01)
    trials = [moments_of(work, GPU)[START].parts["trial of the model"] for work in (whole, half)]
    assert trials[0] == 0
    assert trials[1] == pytest.approx(weights_of(whole.model), rel=0.01)  # of two layers, all


def test_packed_weights_are_counted_as_packed(model_folder: Path, choice_data: Path) -> None:
    whole, *packed = (
        weights_of(work_of(model_folder, choice_data, model__quantization=kind).model) for kind in (None, "int8", "nf4")
    )
    assert whole > packed[0] > packed[1] > whole / 8


def test_answers_that_are_generated_hold_a_cache_of_their_length(model_folder: Path, choice_data: Path) -> None:
    def caches(tokens: int) -> int:
        changes = {"task__kind": "generation", "task__choices": None, "task__max_new_tokens": tokens}
        return moments_of(work_of(model_folder, choice_data, **changes), GPU)[ANSWERS].total

    assert caches(200) > caches(100) > caches(20)


def test_queries_are_kept_where_they_stand_before_the_prompt(model_folder: Path, choice_data: Path) -> None:
    def kept(placement: str, **changes: Any) -> int:
        work = work_of(model_folder, choice_data, template=PLACEMENTS[placement], **changes)
        return moments_of(work, Place("cuda", 10**9, 0))[TRAINING].parts.get("kept queries", 0)

    assert kept("after-query") > 0
    assert kept("system") == kept("after-query", train__cache_queries="never") == 0


def test_the_heap_of_a_cpu_keeps_more_than_is_held(model_folder: Path, choice_data: Path) -> None:
    work = work_of(model_folder, choice_data)
    moments = [moments_of(work, Place(device, None, 0))[TRAINING].parts for device in ("cpu", "cuda")]
    assert moments[0]["not given back"] > 0
    assert "not given back" not in moments[1]


def test_changes_make_it_fit_and_are_told_as_settings(model_folder: Path, choice_data: Path) -> None:
    work = work_of(model_folder, choice_data)
    moments = moments_of(work, GPU)
    assert find_changes(work, GPU, moments) is None  # nobody knows
    roomy = replace(GPU, memory=max(moment.total for moment in moments.values()))
    assert find_changes(work, roomy, moments) is None
    tight = replace(GPU, memory=roomy.memory - 1000)
    changes = find_changes(work, tight, moments)
    assert changes is not None
    assert changes.enough
    assert changes.peak <= tight.memory
    assert changes.settings[0].startswith("train.micro_batch_size=")
    assert work.config.train.micro_batch_size == "auto"


def test_what_fits_nowhere_is_said_to(model_folder: Path, choice_data: Path) -> None:
    work = work_of(model_folder, choice_data)
    changes = find_changes(work, replace(GPU, memory=10), moments_of(work, GPU))
    assert changes is not None
    assert not changes.enough
    assert "model.dtype=bfloat16" in changes.settings
    assert work.model.dtype == torch.bfloat16
