"""Cells without a training of PEFT's: instructions, text search, shared answers; what names a model and a prompt."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

pytest.importorskip("peft")

from tests.conftest import SEEDS, optimize_config  # noqa: E402

import compare_methods  # noqa: E402
from embedgrad_cli.core.passes.scoring import Decoder  # noqa: E402
from embedgrad_cli.errors import UserError  # noqa: E402
from embedgrad_cli.evaluation.arms import ArmPrompt  # noqa: E402
from embedgrad_cli.evaluation.validation import answer_and_grade  # noqa: E402
from embedgrad_cli.tasks.load import load  # noqa: E402
from methods.cells import Cell, in_own_process, in_place  # noqa: E402
from methods.ours import EmbedGrad, arm_of  # noqa: E402
from methods.problem import Problem  # noqa: E402
from methods.records import CellRecord  # noqa: E402
from methods.settings import SEED_PROMPTS, compose, model_choice, prompt_choice, variant_of  # noqa: E402
from methods.text_search import Searched  # noqa: E402
from methods.untrained import INSTRUCTIONS, Instructions, Untrained, instructions_for  # noqa: E402


@pytest.fixture
def problem(model_folder: Path, choice_data: Path) -> Problem:
    config = optimize_config(Path("unused"), model_folder, choice_data)
    return Problem(config, load(config.task, config.seed))


def finish(*cells: Cell) -> list[CellRecord]:
    assert compare_methods.run(cells, "a model", execute=in_place) == 0
    records = [cell.finished() for cell in cells]
    assert None not in records
    return [record for record in records if record is not None]


def right(problem: Problem, prompt: ArmPrompt) -> dict[str, bool]:
    rows = problem.splits.test
    outcomes = answer_and_grade(arm_of(problem, rows, prompt), rows, problem.config.task, 8)
    return {row.id: outcome.correct for row, outcome in zip(rows, outcomes, strict=True)}


def test_untrained_arms_are_the_product_s(problem: Problem, tmp_path: Path) -> None:
    prompts = {"none": ArmPrompt(), "bare": ArmPrompt(is_bare=True), "seed": ArmPrompt((SEEDS[0],))}
    records = finish(*(Cell(problem, Untrained(name, name), tmp_path) for name in prompts))
    assert [record.correct for record in records] == [right(problem, prompt) for prompt in prompts.values()]
    assert [record.chosen for record in records] == [None] * 3


def test_the_best_instruction_is_chosen_in_validation(problem: Problem, tmp_path: Path) -> None:
    texts = ["Solve the problem.", "apples", "a gripping, funny film", SEEDS[0]]
    file = tmp_path / "texts.yaml"
    file.write_text(yaml.safe_dump(texts))
    (record,) = finish(Cell(problem, Instructions("instructions", "", file=file), tmp_path / "work"))
    assert sorted(one.text for one in record.texts) == sorted(texts), "the seed once"
    ranks = [(-one.accuracy, one.loss) for one in record.texts]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == len(texts)
    assert record.correct == right(problem, ArmPrompt((record.texts[0].text,)))


def test_text_search_begins_with_the_finished_prompt(problem: Problem, tmp_path: Path) -> None:
    ours = EmbedGrad("embedgrad", "embedgrad", (0.1, 0.3))
    work = tmp_path / "runs (1, 2)"
    search = Cell(problem, Searched("text-search", "", budget=1000, begins_with=ours), work)
    assert compare_methods.run([search], "a model", execute=in_place) == 1, "there is none yet"
    _, record = finish(Cell(problem, ours, work), search)
    found = json.loads((search.folder / "search" / "search.json").read_text())
    assert found["evaluations"] <= 1000
    assert found["steps"] > 0
    assert [one.text for one in record.texts] == [" | ".join(found["texts"])]
    assert record.correct == right(problem, ArmPrompt(tuple(found["texts"])))
    assert record.chosen is not None
    assert record.chosen.accuracy == max(tried["accuracy"] for tried in found["history"])


def test_seeds_with_the_same_rows_share_answers(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = Untrained("seed", "seed")
    (first,) = finish(Cell(problem, method, tmp_path))

    def refuse(*_: Any) -> None:
        raise AssertionError("these were answered before")

    monkeypatch.setattr(Decoder, "score_choices", refuse)
    other = Problem(replace(problem.config, seed=1), problem.splits)
    assert other.key != problem.key
    (second,) = finish(Cell(other, method, tmp_path))
    assert second.correct == first.correct


def test_no_cell_is_begun_after_the_time_and_a_failure_stops_none(problem: Problem, tmp_path: Path) -> None:
    cells = [Cell(problem, Untrained(name, name), tmp_path) for name in ("none", "seed")]
    assert compare_methods.run(cells, "a model", in_place, minutes=-1) == 0
    assert [cell.finished() for cell in cells] == [None, None]

    def fail_once(work: Any, cell: Cell, name: str | None) -> None:
        if cell.method.name == "none":
            raise UserError("no")
        in_place(work, cell, name)

    assert compare_methods.run(cells, "a model", execute=fail_once) == 1
    assert [cell.finished() is None for cell in cells] == [True, False]


@pytest.mark.slow
@pytest.mark.long
def test_a_part_in_its_own_process_says_what_one_here_says(problem: Problem, tmp_path: Path) -> None:
    ours = EmbedGrad("embedgrad", "embedgrad", (0.1,))
    (here,) = finish(Cell(problem, ours, tmp_path / "here"))
    apart = Cell(problem, ours, tmp_path / "apart")
    assert compare_methods.run([apart], "a model", execute=in_own_process) == 0
    there = apart.finished()
    assert there is not None
    assert there.correct == here.correct
    assert there.chosen is not None
    assert here.chosen is not None
    assert (there.chosen.accuracy, there.chosen.loss) == (here.chosen.accuracy, here.chosen.loss)


@pytest.mark.slow
@pytest.mark.long
def test_a_table_of_two_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(compare_methods, "in_own_process", in_place)
    sizes = ["--examples", "4", "8", "--test", "12", "--steps", "1", "--batch-size", "4"]
    line = ["--task", "reviews", "recommend", *sizes, "--only", "seed", "none", "--out", str(tmp_path)]
    assert compare_methods.main([*line, "--list"]) == 0
    assert capsys.readouterr().out.count("missing: test") == 8
    assert compare_methods.main([*line, "--markdown", str(tmp_path / "table.md")]) == 0
    text = (tmp_path / "table.md").read_text()
    assert text.count("| seed prompt |") == 4
    assert compare_methods.main([*line, "--list"]) == 0
    assert capsys.readouterr().out.count("finished") == 8


def test_folds_have_problems_of_their_own_and_test_every_row_once(tmp_path: Path) -> None:
    rows = [{"text": f"number {i}", "label": i % 2} for i in range(40)]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    split = ["task.split.train=[all]", "task.split.test=null", "task.split.validation=null"]
    lines = [*split, "task.split.num_validation=5", f"task.data_dir={tmp_path}", "task.query='{text}'"]
    labels = ["task.target='{label}'", "task.labels={0: 'Yes', 1: 'No'}", "task.field=null"]
    line = ["--task", "causal-judgement", "--folds", "4", "--examples", "10", "--set", *lines, *labels]
    problems = compare_methods.problems_of(compare_methods.parse(line))
    tested = [row.id for one in problems for row in one.splits.test]
    assert sorted(tested) == sorted(f"all:{number}" for number in range(40))
    assert len({one.series for one in problems}) == 1
    assert len({one.key for one in problems}) == 4


@pytest.mark.parametrize("name", ["a folder", "it's", "a,b=c"])
def test_a_folder_s_name_is_taken_as_it_is(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    assert compose(model_choice(str(folder))).model.path == str(folder)


def test_a_model_is_a_choice_or_a_hub_id() -> None:
    assert compose(model_choice("qwen2.5-0.5b")).model.path == "Qwen/Qwen2.5-0.5B"
    assert compose(model_choice("somebody/something")).model.path == "somebody/something"


def test_a_prompt_is_the_task_s_a_choice_or_a_text() -> None:
    text = 'Isn\'t it {odd}, \\ or "not"?'
    assert compose(prompt_choice("sst2", None)).prompt.text == compose(["prompt=sentiment"]).prompt.text
    assert compose(prompt_choice("sst2", "recommend")).prompt.text == compose(["prompt=recommend"]).prompt.text
    assert compose(prompt_choice("bbh", text)).prompt.text == text
    with pytest.raises(UserError, match="--prompt"):
        prompt_choice("bbh", None)


@pytest.mark.parametrize("task", SEED_PROMPTS)
def test_every_task_has_seven_instructions_the_seed_prompt_among_them(task: str) -> None:
    texts = instructions_for(task)
    assert len(set(texts)) == len(texts) >= 7
    assert compose(prompt_choice(task, None)).prompt.text in texts


def test_a_task_without_instructions_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"task=bbh.*{INSTRUCTIONS.name}"):
        instructions_for("bbh")
    (tmp_path / "own.yaml").write_text("a: b")
    with pytest.raises(UserError, match=r"own\.yaml"):
        instructions_for("bbh", tmp_path / "own.yaml")


def test_rates_are_those_of_a_method_that_has_some() -> None:
    args = compare_methods.parse(["--rates", "lora=3e-4,1e-3", "embedgrad=0.1"])
    assert dict(args.rates) == {"lora": (3e-4, 1e-3), "embedgrad": (0.1,)}
    given = compare_methods.chosen_methods(["lora", "embedgrad", "peft-text"], dict(args.rates), False, None, 1)
    assert [(method.name, len(method.rates)) for method in given] == [("embedgrad", 1), ("peft-text", 4), ("lora", 2)]
    with pytest.raises(UserError, match="seed"):
        compare_methods.chosen_methods(["seed"], {"seed": (0.1,)}, False, None, 1)


def test_what_embedgrad_alone_depends_on_is_named() -> None:
    config: Any = SimpleNamespace(**vars(compose(["trust_region.radius=0.25"])))
    config.objective = SimpleNamespace(name="gold", choice_weight=1.0, gold_weight=0.5)
    config.train = SimpleNamespace(average=0.9, token_dropout=None)
    assert variant_of(config) == "ball 0.25, average 0.9"
    config.objective.name = "verified"
    assert variant_of(config) == "ball 0.25, verified, average 0.9"
    config.objective.name = "choice"
    assert variant_of(config) == "ball 0.25, choice 1, gold 0.5, average 0.9"
