"""The four real data sets, read whole (they are not part of the repository: without them these tests are skipped)."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import Any

import pytest
from tests.conftest import shared_data
from tests.tasks.make_task import make_task, words_task

from embedgrad_cli.config.compose import Request, config_of
from embedgrad_cli.config.task_schema import TaskConfig
from embedgrad_cli.tasks import graders
from embedgrad_cli.tasks.load import load

pytestmark = pytest.mark.slow


def sst2() -> TaskConfig:
    split = {"validation": None, "num_validation": 200, "test": ["validation", "dev"]}
    return make_task(shared_data("sst2"), query="{sentence}", split=split)


def gsm8k() -> TaskConfig:
    split = {"validation": None, "num_validation": 200}
    return words_task(shared_data("gsm8k"), remove="<<[^>]*>>", split=split)


def math() -> TaskConfig:
    split = {"validation": None, "num_validation": 200, "test": ["math500", "test"]}
    fields = {"query": "{problem}", "target": "{solution}"}
    return words_task(shared_data("math"), grader="boxed", split=split, **fields)


def causal_judgement() -> TaskConfig:
    held_out = {"validation": None, "num_validation": 40, "test": None, "num_test": 90}
    split = {"train": ["causal_judgement", "test"], **held_out}
    fields = {"query": "{input}", "target": "{target}", "field": "examples"}
    return make_task(shared_data("bbh"), labels=None, choices=["Yes", "No"], split=split, **fields)


@pytest.mark.parametrize(
    ("make", "counts", "contradictions"),
    [
        (sst2, {"train": 66_773, "validation": 200, "test": 872}, 10),
        (gsm8k, {"train": 7_273, "validation": 200, "test": 1_319}, 0),
        (math, {"train": 800, "validation": 200, "test": 500}, 0),
        (causal_judgement, {"train": 53, "validation": 40, "test": 90}, 4),
    ],
)
def test_every_row_is_read(make: Any, counts: dict[str, int], contradictions: int) -> None:
    task, started = make(), time.process_time()
    splits = load(task, 0)
    assert time.process_time() - started < 30, "a few seconds; what grows with the square of the rows takes minutes"
    assert splits.report.counts == counts
    assert len(splits.report.contradictions) == contradictions


def test_contradictory_stories_of_causal_judgement_are_gone() -> None:
    report = load(causal_judgement(), 0).report
    assert report.contradictions == [f"causal_judgement:{n}" for n in (32, 36, 104, 119)]
    assert sum(report.counts.values()) == 183


def lines(folder: str, name: str) -> list[dict[str, Any]]:
    text = (shared_data(folder) / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


@pytest.mark.parametrize("name", ["train.jsonl", "test.jsonl"])
def test_every_gsm8k_answer_is_found(name: str) -> None:
    grader = graders.get("last-number")
    for row in lines("gsm8k", name):
        gold = str(int(row["answer"].split("####")[1].replace(",", "")))
        grade = grader.judge(gold, row["answer"])
        assert (grade.strict, grade.lenient) == (graders.Extraction(gold, True),) * 2
        said = grader.judge(gold, row["answer"].replace("####", "The answer is"))
        assert (said.strict.extracted, said.lenient.correct) == (None, True)


def test_every_math_answer_is_found_and_equals_itself() -> None:
    grader = graders.get("boxed")
    assert [row for row in lines("math", "train.jsonl") if grader.gold(row["solution"]) is None] == []
    rows = lines("math", "math500.jsonl")
    misses = [row["unique_id"] for row in rows if not grader.judge(row["answer"], row["solution"]).strict.correct]
    assert misses == []  # the promise is at least 498 of 500


def test_neighbouring_math_answers_are_told_apart() -> None:
    grader = graders.get("boxed")
    answers = [row["answer"] for row in lines("math", "math500.jsonl")][:100]
    pairs = [(a, b) for a, b in pairwise(answers) if a != b]
    assert [(a, b) for a, b in pairs if grader.judge(a, rf"\boxed{{{b}}}").strict.correct] == [("5", "x=5")]


def shipped(name: str, folder: str, *overrides: str) -> TaskConfig:
    """A task of `conf/` as it is, on the real files."""
    config: Any = config_of(Request("optimize", [f"task={name}", f"task.data_dir={shared_data(folder)}", *overrides]))
    return config.task


def test_no_shipped_stop_string_is_in_a_right_answer() -> None:
    names = [file.stem for file in shared_data("bbh").glob("*.json")]
    tasks = [shipped("gsm8k", "gsm8k"), shipped("math", "math")]
    tasks += [shipped("bbh", "bbh", f"task.name={name}") for name in names]
    assert len(tasks) == 25
    for task in tasks:
        assert task.stop, task.name
        splits = load(task, 0)
        targets = [row.target for row in (*splits.train, *splits.validation, *splits.test)]
        assert [(stop, target) for target in targets for stop in task.stop if stop in target] == []
