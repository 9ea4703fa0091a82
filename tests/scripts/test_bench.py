"""The benchmarks measure what they say: equal work on both sides, operations counted rightly, rows with their keys."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

pytest.importorskip("peft")

from tests.conftest import make_tokenizer  # noqa: E402

import bench_attention  # noqa: E402
import bench_evaluation  # noqa: E402
import bench_growth  # noqa: E402
import bench_parts  # noqa: E402
import bench_step  # noqa: E402
import bench_trainer  # noqa: E402
from bench import measure  # noqa: E402
from bench.batches import Shape, make_vectors  # noqa: E402
from bench.countdown import answered_with, teach_countdown, without_countdown  # noqa: E402
from bench.models import ModelSpec  # noqa: E402
from bench.steps import make_prompt, our_step, peft_model, peft_step  # noqa: E402
from embedgrad_cli.core.passes.forward import Forward  # noqa: E402
from embedgrad_cli.core.passes.operations import Costs, Run, needed_operations, plain_operations  # noqa: E402
from embedgrad_cli.core.passes.scoring import generate  # noqa: E402
from embedgrad_cli.core.text.marked_tokens import Example  # noqa: E402

SPEC = ModelSpec("1M", vocabulary=400)
PROMISED = {
    *("prompt", "query", "target", "batch", "placement"),
    *("ratio", "floor_ratio", "memory_ratio", "grad_error", "share", "peft_share", "matmul_rate"),
}


@pytest.fixture(scope="module")
def network() -> Any:
    return SPEC.make()


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of its own takes seconds to start."""

    def call(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    def apart(makers: Any, repeats: int) -> list[float]:
        return measure.medians([maker(*arguments) for maker, arguments in makers], repeats)

    monkeypatch.setattr(bench_step, "in_fresh_process", call)
    monkeypatch.setattr(bench_step, "medians_apart", apart)
    monkeypatch.setitem(measure.MATMUL_SIZES, "cpu", 64)


def test_operations_of_a_run_counted_by_hand() -> None:
    costs = Costs(weights=10, head=100, attention=1)
    assert costs.run(Run(3)) == (2 * 3 * 10 + 4 * 6) + (2 * 3 * 10 + 8 * 6)
    # two tokens behind four frozen places and a live one see 6 + 7 places, of which 2 + 3 are live
    assert costs.run(Run(2, frozen=4, live=1)) == (2 * 2 * 10 + 4 * 13) + (2 * 2 * 10 + 4 * (13 + 5))
    assert costs.run(Run(2, frozen=4, has_graph=False)) == 2 * 2 * 10 + 4 * 11
    assert costs.run(Run(0, frozen=4)) == 0
    assert costs.predictions(3) == 3 * 100 * 2 * 2


def test_operations_of_a_batch_counted_by_hand() -> None:
    costs = Costs(weights=10, head=100, attention=1)
    before = [Example("0", (-1, -2, 11), (7,)), Example("1", (-1, -2, 12, 13), (7,))]
    assert plain_operations(costs, before) == 2 * (costs.run(Run(5)) + costs.predictions(5))
    branches = costs.run(Run(1, live=2)) + costs.run(Run(2, live=2))
    assert needed_operations(costs, before) == costs.run(Run(2)) + branches + costs.predictions(2)
    after = [Example("0", (5, 11, -1, -2), (7, 8)), Example("1", (5, 12, 13, -1, -2), (7,))]
    kept = costs.run(Run(3, frozen=2)) + costs.run(Run(2, frozen=3)) + costs.predictions(3)
    queries = costs.run(Run(1, frozen=1, has_graph=False)) + costs.run(Run(2, frozen=1, has_graph=False))
    assert needed_operations(costs, after, queries_kept=True) == kept
    assert needed_operations(costs, after) == kept + queries
    with_mlp = replace(costs, last_mlp=4)  # 2 shared tokens and one of a branch predict nothing
    left_out = 4 * (2 + 1) * 4
    assert needed_operations(with_mlp, before) == needed_operations(costs, before) - left_out
    assert plain_operations(with_mlp, before) == plain_operations(costs, before)


@pytest.mark.slow
def test_counted_operations_are_those_that_run(network: Any) -> None:
    """The matrix products of a step: PEFT's exactly, ours without what autograd leaves out in the outermost layers."""
    examples = [Example(str(i), (-1, -2, -3, 20 + i, 31, 32), (40 + i,)) for i in range(4)]
    vectors, costs = make_vectors(3, network.config.hidden_size), replace(Costs.of(network), attention=0)
    assert products(peft_step(network, examples, vectors)) == plain_operations(costs, examples)
    needed, ours = needed_operations(costs, examples), products(our_step(network, examples, vectors))
    ours += costs.predictions(sum(len(e.target) for e in examples))  # these run inside an attention kernel
    assert 0.5 * needed < ours <= needed


def products(step: Callable[[], Any]) -> int:
    step()
    with FlopCounterMode(display=False) as counter:
        step()
    return sum(n for op, n in counter.get_flop_counts()["Global"].items() if "mm" in str(op))


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_step_rows_have_what_is_promised_and_gradients_agree(tmp_path: Path) -> None:
    file, shapes = tmp_path / "rows.json", ["4,4,1,8", "3,4,5,8,after"]
    bench_step.main(["--size", "1M", "--repeats", "1", "--shapes", *shapes, "--json", str(file)])
    rows = json.loads(file.read_text())
    assert [row["placement"] for row in rows] == ["before", "after"]
    for row in rows:
        assert {*PROMISED, "eight_passes"} <= row.keys()
        assert row["grad_error"] <= 1e-5
        assert row["ratio"] > 0
        assert row["floor_ratio"] > 1
        assert row["eight_passes"] >= 1


@pytest.mark.slow
def test_every_part_may_be_left_out_without_another_gradient(tmp_path: Path) -> None:
    file, shapes = tmp_path / "rows.json", ["4,4,3,8", "3,4,5,8,after"]
    bench_parts.main(["--size", "1M", "--repeats", "1", "--shapes", *shapes, "--json", str(file)])
    before, after = json.loads(file.read_text())
    assert all(row["grad_error"] <= 1e-5 for row in (before, after))
    assert before["queries each time"] is None
    newer = set() if hasattr(functional, "linear_cross_entropy") else {bench_parts.FUSED}
    assert all(after[part] > 0 for part in bench_parts.PARTS if part not in newer)


def test_reading_the_trunk_in_place_is_counted_without_the_device(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    shapes = ["--size", "5M", "--shapes", "200,8,2,6"]
    for device in ("cpu", "cuda"):
        bench_attention.main([*shapes, "--device", device, "--json", str(file)])
        in_place, copies, quotient = json.loads(file.read_text())
        assert copies["copied"] > in_place["copied"] > 0, "the trunk is long"
        assert quotient["copied"] == pytest.approx(copies["copied"] / in_place["copied"], abs=1e-3)
        assert all(in_place[name] > 0 for name in bench_attention.FIGURES)


@pytest.mark.slow
def test_a_part_that_is_left_out_is_not_run(network: Any) -> None:
    shape = Shape(4, 4, 3, 8)
    model = bench_parts.language_model(network)
    _ = model.has_plain_head
    whole = products(bench_parts.step_without("", model, shape))
    for part in ("no trunk", "one padded batch", "some logits", "whole last layer"):
        assert products(bench_parts.step_without(part, model, shape)) > whole, part


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_growth_varies_one_quantity_at_a_time(tmp_path: Path) -> None:
    file, plot = tmp_path / "rows.json", tmp_path / "growth.svg"
    sizes = ["--size", "1M", "--prompts", "2", "5", "--batches", "2", "--models", "1M"]
    bench_growth.main([*sizes, "--repeats", "1", "--json", str(file)])
    rows = json.loads(file.read_text())
    assert [row["varied"] for row in rows] == ["prompt", "prompt", "batch", "parameters"]
    assert [(row["prompt"], row["batch"]) for row in rows] == [(2, 8), (5, 8), (20, 2), (100, 8)]
    assert all(row["grad_error"] <= 1e-5 and row.keys() >= PROMISED for row in rows)
    pytest.importorskip("matplotlib")
    from bench.plot import plot_growth

    rows[0]["peft_memory"] = None  # what PEFT had no memory for is left out
    plot_growth(rows, plot)
    assert "prompt length (tokens)" in plot.read_text()


@pytest.mark.slow
def test_evaluation_gives_the_same_scores_and_answers(tmp_path: Path) -> None:
    file, small = tmp_path / "rows.json", ["--prompt", "8", "--examples", "5", "--batch", "3"]
    bench_evaluation.main(["--size", "1M", "--repeats", "1", *small, "--json", str(file)])
    rows = json.loads(file.read_text())
    assert [row["kind"] for row in rows] == ["choice", "choice", "generate"]
    assert all(row["error"] <= 1e-4 and row["ratio"] > 0 for row in rows)


@pytest.mark.slow
def test_a_countdown_ends_where_it_is_told_to() -> None:
    lengths, longest = [1, 5, 20], 20
    model = teach_countdown(SPEC.make(), longest)
    examples = [without_countdown(example, longest) for example in Shape(4, 6, 1, 3).examples(300)]
    examples = [answered_with(e, length) for e, length in zip(examples, lengths, strict=True)]
    prompt = make_prompt(make_vectors(4, model.hidden_size))
    answers = generate(Forward(model, examples), examples, prompt, 30, batch_size=2)
    assert [len(answer) + 1 for (answer,) in answers] == lengths


@pytest.mark.slow
def test_peft_generates_behind_the_prompt(network: Any) -> None:
    work = bench_evaluation.Work(Shape(7, 4, 1, 2).examples(300), make_vectors(7, network.config.hidden_size), 2)
    widths: list[int] = []

    def note_width(_: Any, __: Any, inputs: dict[str, Any]) -> None:
        tokens = inputs["input_ids"] if inputs.get("inputs_embeds") is None else inputs["inputs_embeds"]
        widths.append(tokens.shape[1])

    hook = network.base_model.register_forward_pre_hook(note_width, with_kwargs=True)
    ids, mask = bench_evaluation.pad(work.queries, network.device, left=True)
    peft_model(network, work.vectors).generate(input_ids=ids, attention_mask=mask, max_new_tokens=3, do_sample=False)
    hook.remove()
    assert widths[0] == 7 + ids.shape[1]
    assert set(widths[1:]) <= {1}


@pytest.mark.slow
def test_trainer_sees_the_same_rows_and_loss(tmp_path: Path) -> None:
    rows = [f"{'a gripping, funny film ' * (i % 3 + 1)}number {i}\t{i % 2}" for i in range(230)]
    (tmp_path / "sst2").mkdir()
    for split in ("train", "validation"):
        mine = rows if split == "train" else [f"other {row}" for row in rows[:3]]
        (tmp_path / "sst2" / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *mine]) + "\n")
    spec = replace(SPEC, vocabulary=None)
    work = bench_trainer.prepare("sst2", spec.make(), make_tokenizer(chat=False), tmp_path, steps=5, batch_size=4)
    row = bench_trainer.bench("sst2", spec, work, repeats=1)
    assert {"task", "ratio", "seconds", "trainer_seconds"} <= row.keys()
    assert row["loss_error"] <= 1e-5
    assert row["ratio"] > 0


@pytest.mark.slow
def test_memory_is_that_of_the_call_and_not_what_was_there() -> None:
    megabytes = 2**20
    held = torch.ones(32 * megabytes)  # 128 MB before the call
    added = measure.added_memory(lambda: torch.ones(16 * megabytes).sum(), "cpu")
    assert len(held) == 32 * megabytes
    assert 60 * megabytes <= added <= 100 * megabytes


@pytest.mark.slow
def test_a_process_of_its_own_answers_fails_or_is_killed() -> None:
    assert measure.in_fresh_process(math.sqrt, 4.0) == 2.0
    assert measure.in_fresh_process(signal.raise_signal, signal.SIGKILL) is None
    with pytest.raises(RuntimeError, match="sqrt"):
        measure.in_fresh_process(math.sqrt, -1.0)


@pytest.mark.slow
def test_functions_in_processes_of_their_own_are_timed_in_turns() -> None:
    makers = [(partial, (time.sleep, 0.02)), (partial, (signal.raise_signal, signal.SIGKILL))]
    slept, killed = measure.medians_apart(makers, repeats=2)
    assert slept >= 0.02
    assert killed is None
