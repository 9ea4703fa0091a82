"""The comparison is fair: the same start, the same steps, the same decoding; and it does not do work twice."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

pytest.importorskip("peft")

from safetensors.torch import load_file  # noqa: E402
from tests.conftest import SEEDS, optimize_config  # noqa: E402

import compare_methods  # noqa: E402
from embedgrad_cli.config.fields import seeds_of  # noqa: E402
from embedgrad_cli.config.task_schema import SplitConfig  # noqa: E402
from embedgrad_cli.evaluation.arms import ArmPrompt  # noqa: E402
from embedgrad_cli.evaluation.validation import answer_and_grade  # noqa: E402
from embedgrad_cli.tasks.load import load  # noqa: E402
from methods.cells import Cell, choose, in_place  # noqa: E402
from methods.ours import EmbedGrad, arm_of  # noqa: E402
from methods.peft_methods import Learner, Peft, lora, prompt_tuning  # noqa: E402
from methods.problem import EMBEDDED, Problem, weights_hash  # noqa: E402
from methods.records import Trial  # noqa: E402
from methods.untrained import Untrained  # noqa: E402

MAKERS = {"text": partial(prompt_tuning, init="TEXT"), "random": partial(prompt_tuning, init="RANDOM"), "lora": lora}
QUERIES = ["Tom has 3 apples.", "How many?", "Ana read 4 pages a day for 7 days, then 9 more pages. How many?"]


@pytest.fixture
def problem(model_folder: Path, choice_data: Path) -> Problem:
    config = optimize_config(Path("unused"), model_folder, choice_data)
    return Problem(config, load(config.task, config.seed))


@pytest.fixture
def ragged(model_folder: Path, tmp_path: Path) -> Problem:
    """A generation task whose rows and targets differ in length."""
    for split in ("train", "validation", "test"):
        rows = [{"text": f"{split} {query}", "label": f"{i} apples" * i + " 7"} for i, query in enumerate(QUERIES)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = optimize_config(Path("unused"), model_folder, tmp_path, task__kind="generation", task__labels=None)
    task = replace(config.task, choices=None, grader="last-number", max_new_tokens=12)
    return Problem(replace(config, task=task), load(task, config.seed))


def moved(learner: Learner) -> Learner:
    """The learner somewhere off its start, where LoRA and virtual tokens do something."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in learner.parameters:
            parameter += 0.3 * torch.randn_like(parameter)
    return learner


def plain_loss(network: Any, ids: list[int], target: tuple[int, ...]) -> torch.Tensor:
    logits = network(input_ids=torch.tensor([[*ids, *target]])).logits[0, len(ids) - 1 : -1]
    return cross_entropy(logits, torch.tensor(target))


def test_text_initialisation_is_the_seed_in_front_of_the_bare_conversation(ragged: Problem) -> None:
    learner, model = prompt_tuning(ragged, "TEXT"), ragged.fresh_model()
    row = ragged.splits.train[0]
    [example] = learner.encode([row])
    messages = [{"role": "user", "content": row.query}]
    text = SEEDS[0] + model.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    expected = plain_loss(model.network, model.tokenizer(text)["input_ids"], example.target)
    torch.testing.assert_close(learner.loss([example]), expected)


def test_lora_starts_with_the_logits_of_the_seed_arm(ragged: Problem) -> None:
    learner = lora(ragged)
    arm = arm_of(ragged, ragged.splits.test, ArmPrompt(seeds_of(ragged.config.prompt)))
    for ours, theirs in zip(arm.examples, learner.encode(ragged.splits.test), strict=True):
        model = arm.forward.model
        expected = model.network(inputs_embeds=arm.prompt.embed(torch.tensor([ours.tokens]), model)).logits
        torch.testing.assert_close(learner.wrapped(input_ids=torch.tensor([theirs.tokens])).logits, expected)


@pytest.mark.parametrize("name", MAKERS)
def test_the_loss_of_a_batch_is_that_of_its_rows(name: str, ragged: Problem) -> None:
    learner = moved(MAKERS[name](ragged))
    batch = learner.encode(ragged.splits.train)
    sizes = torch.tensor([float(len(e.target)) for e in batch])
    assert len({e.length for e in batch}) == len(batch)
    single = torch.stack([learner.loss([e]) for e in batch])
    torch.testing.assert_close(learner.loss(batch), single @ sizes / sizes.sum())
    arm = learner.arm(ragged.splits.train)
    validation_loss = arm.forward.mean_loss(arm.examples, arm.prompt, 8)
    assert validation_loss == pytest.approx(learner.loss(batch).item(), rel=1e-5)


@pytest.mark.parametrize("name", MAKERS)
def test_answers_of_a_batch_are_what_peft_generates_row_by_row(name: str, ragged: Problem) -> None:
    learner, rows = moved(MAKERS[name](ragged)), ragged.splits.test
    outcomes = answer_and_grade(learner.arm(rows), rows, ragged.config.task, 8)
    for outcome, example in zip(outcomes, learner.encode(rows), strict=True):
        ids = torch.tensor([example.tokens[learner.virtual_tokens :]])
        ends = {"eos_token_id": sorted(learner.model.end_ids), "pad_token_id": 0}
        output = learner.wrapped.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, **ends
        )
        answer = output[0, ids.shape[1] :].tolist()
        assert outcome.output == learner.model.tokenizer.decode(answer, skip_special_tokens=True)
    assert len({outcome.output for outcome in outcomes}) > 1


def test_where_the_placement_is_the_same_embedgrad_and_peft_train_alike(ragged: Problem, tmp_path: Path) -> None:
    """So nothing but placement, trust region and speed is compared: batches, updates and selection are the same."""
    config = ragged.config
    front = replace(
        config,
        model=replace(config.model, template="plain"),
        template=replace(config.template, text="{prompt}{query}\n"),
        train=replace(config.train, batch_size=2),
    )
    problem, trials = Problem(front, ragged.splits), []
    for method in (EmbedGrad("", "", trust_region=False), Peft("", "", make=MAKERS["text"])):
        folder = tmp_path / type(method).__name__
        folder.mkdir()
        trials.append(method.train(problem, 0.3, folder))
    ours, theirs = trials
    assert (ours.accuracy, ours.step, ours.parameters) == (theirs.accuracy, theirs.step, theirs.parameters)
    assert ours.step > 0
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-4)
    vectors = load_file(tmp_path / "EmbedGrad" / "prompt.safetensors")["soft_prompt"]
    trained = load_file(tmp_path / "Peft" / "trained.safetensors")["trained"]
    torch.testing.assert_close(vectors.flatten(), trained, atol=1e-3, rtol=1e-3)


def trial(lr: float, accuracy: float, loss: float) -> Trial:
    return Trial(
        lr=lr,
        accuracy=accuracy,
        loss=loss,
        step=0,
        parameters=1,
        seconds=1.0,
        peak_bytes=None,
        weights_before="hash",
        weights_after="hash",
    )


def test_validation_chooses_and_its_loss_breaks_ties() -> None:
    trials = {"a": trial(1, 0.5, 0.1), "b": trial(2, 0.7, 0.9), "c": trial(3, 0.7, 0.8), "d": trial(4, 0.7, 0.8)}
    assert choose(trials) == "c"


def test_only_the_chosen_answer_the_test_and_a_restart_does_nothing_again(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = [
        Untrained("none", "no prompt"),
        EmbedGrad("embedgrad", "embedgrad", (0.1, 0.3)),
        Peft("text", "text", (0.1, 0.3), MAKERS["text"]),
        Peft("lora", "lora", (1e-3, 1e-2), lora),
    ]
    cells = [Cell(problem, method, tmp_path) for method in methods]
    assert compare_methods.run(cells, "a model", execute=in_place) == 0
    for cell in cells[1:]:
        record = cell.finished()
        assert record is not None
        assert record.chosen is not None
        assert [file.parent.name for file in cell.folder.glob("*/test.json")] == [f"lr-{record.chosen.lr:g}"]
        assert record.chosen in record.trials
        assert all(t.weights_before == t.weights_after for t in record.trials)
        assert all(t.peak_bytes is not None and t.peak_bytes > 1e8 for t in record.trials)
        assert list(record.correct) == [row.id for row in problem.splits.test]
        assert record.seconds > record.chosen.seconds > 0

    def refuse(*_: Any) -> None:
        raise AssertionError("this was done before")

    before = [cell.finished() for cell in cells]
    assert compare_methods.run(cells, "a model", execute=refuse) == 0
    # One rate fewer: nothing is trained again, and another one may be the chosen.
    narrowed = Cell(problem, replace(methods[1], rates=(0.1,)), tmp_path)
    assert narrowed.finished() is None
    assert narrowed.missing() == []
    assert [cell.finished() for cell in cells] == before


def test_what_a_result_depends_on_names_its_folder(problem: Problem, model_folder: Path, tmp_path: Path) -> None:
    config = problem.config
    more_steps = replace(config, train=replace(config.train, steps=7))
    fewer_rows = replace(config.task, split=SplitConfig(["train"], ["validation"], ["test"], 4, None, None, None))
    other_model = tmp_path / "other"
    shutil.copytree(model_folder, other_model)
    same_model = Problem(replace(config, model=replace(config.model, path=str(other_model))), problem.splits)
    assert (same_model.series, same_model.key) == (problem.series, problem.key)
    (other_model / "generation_config.json").write_text('{"eos_token_id": 7}')
    others = [
        Problem(more_steps, problem.splits),
        Problem(replace(config, task=fewer_rows), load(fewer_rows, config.seed)),
        Problem(replace(config, seed=1), problem.splits),
        Problem(replace(config, model=replace(config.model, path=str(other_model))), problem.splits),
    ]
    assert len({(one.series, one.key) for one in [problem, *others]}) == 5
    assert others[1].series == others[2].series == problem.series, "size and seed are one series' own"
    unchanged = [
        replace(config, output_dir="elsewhere", device="cuda"),
        replace(config, evaluation=replace(config.evaluation, batch_size=3)),
        replace(config, optimizer=replace(config.optimizer, lr=0.7)),
        replace(config, trust_region=replace(config.trust_region, radius=0.7)),
        replace(config, task=replace(config.task, data_dir="elsewhere")),
        replace(config, report=False),
    ]
    assert {Problem(one, problem.splits).series for one in unchanged} == {problem.series}
    ours = EmbedGrad("embedgrad", "embedgrad")
    assert ours.folder(Problem(unchanged[3], problem.splits)) != ours.folder(problem), "a matter of this method alone"


def test_the_weights_hash_notices_a_change_and_overlooks_lora(ragged: Problem) -> None:
    network = ragged.fresh_model().network
    before = weights_hash(network)
    assert weights_hash(moved(lora(ragged)).model.network) == before
    with torch.no_grad():
        network.get_input_embeddings().weight[0, 0] += 1e-3
    assert weights_hash(network) != before


@pytest.mark.parametrize("task", EMBEDDED)
def test_every_task_composes_with_its_seed_prompt(task: str) -> None:
    problem = Problem.compose(task, ["task.split.num_train=8", "task.split.num_test=20", "train.steps=1"])
    assert (len(problem.splits.train), len(problem.splits.test)) == (8, 20)
    assert problem.config.trust_region.kind == "ball"
