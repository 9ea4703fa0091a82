"""Every real BBH file, by the YAML alone: it loads, renders, and its own gold targets are right."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import SHARED_DATA, make_tokenizer, shared_data

from embedgrad_cli.config.compose import Request, config_of
from embedgrad_cli.config.schema import TemplateConfig
from embedgrad_cli.config.task_schema import TaskConfig
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.errors import DataError
from embedgrad_cli.tasks import graders
from embedgrad_cli.tasks.load import Row, Splits, load

pytestmark = pytest.mark.slow

NAMES = sorted(path.stem for path in (SHARED_DATA / "bbh").glob("*.json")) or ["no files"]
WORDS = ("boolean_expressions", "dyck_languages", "multistep_arithmetic_two", "object_counting", "word_sorting")
IN_WORDS = {"movie_recommendation": 1, "ruin_names": 2}  # rows whose options were split at their commas
BROKEN = {**IN_WORDS, "snarks": 1}  # whose last row ends in the middle of its first option


def task_of(name: str, *overrides: str) -> tuple[TaskConfig, TemplateConfig]:
    data_dir = f"task.data_dir={shared_data('bbh')}"
    config = config_of(Request("optimize", ["task=bbh", f"task.name={name}", data_dir, *overrides]))
    return config.task, config.template  # type: ignore[union-attr]


def rows_of(splits: Splits) -> list[Row]:
    return [*splits.train, *splits.validation, *splits.test]


@pytest.mark.parametrize("name", NAMES)
def test_every_file_loads_renders_and_grades_its_own_targets(name: str) -> None:
    task, template = task_of(name)
    splits = load(task, 0)
    rows = rows_of(splits)
    lost = len(splits.report.contradictions) + splits.report.duplicates_removed
    assert len(rows) + lost == {"causal_judgement": 187, "penguins_in_a_table": 146, "snarks": 178}.get(name, 250)
    prompt_template = PromptTemplate(template, ["Think."], make_tokenizer(), is_chat=True)
    in_words = 0
    for row in rows:
        assert row.query in prompt_template.render(row.query).text
        grade = graders.get(task.grader, row.choices).judge(row.answer, row.target)
        assert (grade.strict.correct, grade.lenient.correct) == (True, True)
        said = graders.get(task.grader, row.choices).judge(row.answer, f"Step by step.\nSo the answer is {row.target}.")
        assert said.lenient.correct, (row.target, said)
        in_words += not row.choices
    assert in_words == (len(rows) if name in WORDS else IN_WORDS.get(name, 0))


@pytest.mark.parametrize("name", ["multistep_arithmetic_two", "object_counting"])
def test_numbers_by_the_grader_of_numbers(name: str) -> None:
    task, _ = task_of(name, "task.grader=last-number")
    judge = graders.get("last-number").judge
    assert all(judge(row.answer, f"So the answer is {row.target}.").lenient.correct for row in rows_of(load(task, 0)))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WORDS])
def test_options_are_scored(name: str) -> None:
    shared_data("bbh")
    task, _ = task_of(name, "task.kind=choice")
    if name in BROKEN:
        with pytest.raises(DataError, match=r"(?s)(outside the choices|finds 1 choice).*task.broken=skip"):
            load(task, 0)
        task.broken = "skip"
    splits = load(task, 0)
    skipped = splits.report.broken_rows_skipped
    assert (skipped.count if skipped else 0) == BROKEN.get(name, 0)
    assert all(row.answer in row.choices and len(row.choices) > 1 for row in rows_of(splits))


def test_words_are_scored_with_choices_of_ones_own() -> None:
    task, _ = task_of("boolean_expressions", "task.kind=choice", 'task.choices=["True","False"]')
    assert {row.choices for row in rows_of(load(task, 0))} == {("True", "False")}


def test_the_worked_examples_of_the_paper_fit(tmp_path: Path) -> None:
    text = (shared_data("bbh") / "cot-prompts" / "snarks.txt").read_text(encoding="utf-8")
    solutions = [part.partition("\nA: ")[2] for part in text.split("\n\nQ: ")[1:]]
    judge = graders.get("label", ("(A)", "(B)")).judge
    grades = [judge(gold, solution) for gold, solution in zip(["(A)", "(B)", "(A)"], solutions, strict=True)]
    assert [grade.lenient.correct for grade in grades] == [True] * 3
    assert [grade.strict.extracted for grade in grades] == [None] * 3
