"""Schema and validator: every wrong value is named, and all are named at once."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from embedgrad_cli.config.build import build, check_value
from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.config.spelling import nearest_key

PLAIN: dict[str, Any] = {
    "output_dir": "out",
    "seed": 0,
    "device": "cpu",
    "log_level": "info",
    "model": {"path": "Qwen/Q", "revision": None, "dtype": "auto", "template": "auto", "trust_remote_code": False},
    "template": {"messages": [{"role": "user", "content": "{prompt} {query}"}], "text": "{prompt}\n{query}\n"},
    "prompt": {"text": "Think."},
    "task": {
        "name": "t",
        "kind": "choice",
        "data_dir": None,
        "hub": {"path": "a/b", "name": None, "revision": None},
        "field": None,
        "query": "{x}",
        "target": "{y}",
        "remove": None,
        "target_pattern": None,
        "labels": {0: "no", 1: "yes"},
        "choices": ["no", "yes"],
        "choices_pattern": None,
        "keep": [],
        "fewshot": 0,
        "fewshot_style": "text",
        "grader": "label",
        "extraction": "lenient",
        "fold": None,
        "broken": "error",
        "split": {
            "train": "train",
            "validation": None,
            "test": ["test", "dev"],
            "num_train": None,
            "num_validation": 1e1,
            "num_test": None,
            "folds": None,
        },
        "max_new_tokens": 8,
        "too_long": "skip",
    },
    "optimizer": {
        "name": "sgd",
        "lr": 1,
        "betas": [0.9, 0.99],
        "momentum": 0,
        "weight_decay": 0,
        "schedule": "linear",
        "warmup_steps": 0,
        "max_grad_norm": None,
    },
    "trust_region": {"kind": "none", "radius": 0.5, "weight": 0},
    "train": {
        "steps": 0,
        "batch_size": 1,
        "tokens_per_batch": None,
        "micro_batch_size": "auto",
        "cache_queries": "auto",
        "checkpoint_activations": False,
        "eval_every": 1,
        "patience": None,
        "checkpoint_every": 1,
    },
    "evaluation": {"batch_size": 1, "breakdown": None},
}


def with_values(**values: Any) -> dict[str, Any]:
    plain = copy.deepcopy(PLAIN)
    for key, value in values.items():
        *way, last = key.split("__")
        target = plain
        for name in way:
            target = target[name]
        target[last] = value
    return plain


def test_a_right_config_becomes_typed_dataclasses() -> None:
    config, problems = build("optimize", PLAIN)

    assert problems == []
    assert isinstance(config, OptimizeConfig)
    assert config.task.split.train == ["train"], "one name is a list of one"
    assert config.task.split.num_validation == 10
    assert isinstance(config.optimizer.lr, float)
    assert config.task.labels == {"0": "no", "1": "yes"}
    assert config.template.messages[0].role == "user"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("train__steps", "many", "train.steps: 'many' is not a whole number"),
        ("train__steps", 1.5, "train.steps: 1.5 is not a whole number"),
        ("train__steps", True, "train.steps: true is not a whole number"),
        ("train__steps", -1, "train.steps: -1 is not 0 or more"),
        ("train__micro_batch_size", "many", "train.micro_batch_size: 'many' is not a whole number or auto"),
        ("train__micro_batch_size", 0, "train.micro_batch_size: 0 is not 1 or more"),
        ("train__batch_size", None, "train.batch_size: null is not a whole number"),
        ("optimizer__lr", 0, "optimizer.lr: 0 is not above 0"),
        ("optimizer__lr", float("inf"), "optimizer.lr: inf is not a number"),
        ("optimizer__lr", float("nan"), "optimizer.lr: nan is not a number"),
        ("optimizer__betas", [0.9], "optimizer.betas: [0.9]"),
        ("optimizer__betas", [0.9, 1.0], "optimizer.betas: [0.9, 1.0]"),
        ("optimizer__name", "adamww", "did you mean adamw"),
        ("model__trust_remote_code", "yes", "is not true or false"),
        ("model__path", "./nowhere", "model.path: there is no folder './nowhere'"),
        ("model__path", "a/b/c", "model.path: there is no folder 'a/b/c'"),
        ("model__path", "embedded:nothing", "model.path: there is no 'embedded:nothing'"),
        ("model__path", "???", "model.path: it has no value yet. Give model.path=…"),
        ("prompt__text", " ", "prompt.text: it is empty"),
        ("prompt__text", ["a", "b"], "prompt.text: text 1 has no place in the template"),
        ("prompt__text", 3.5, "prompt.text: 3.5 is not text; write it in quotes"),
        ("template__text", "{query}", "template.text: it has no place for the prompt"),
        ("template__text", "{prompt}", "template.text: it has no place for the query"),
        ("template__text", "{prompt.1} {query}", "template.text: it asks for {prompt.1}"),
        ("template__messages", [{"role": "robot", "content": "{prompt}{query}"}], "'robot' is not one of system"),
        ("template__messages", [{"role": "user"}], "template.messages[0].content: it has no value yet"),
        ("template__messages", "hello", "is not a list"),
        ("task__data_dir", "/no/such/folder", "task.data_dir: '/no/such/folder' does not exist"),
        ("task__data_dir", __file__, "is a file"),
        ("task__hub__path", None, "Say where the data is: task.data_dir=DIR"),
        ("task__choices", None, "task.choices: kind=choice scores at least two labels"),
        ("task__choices", ["yes", "yes"], "task.choices: a label occurs twice"),
        ("task__choices", [True, False], "is not text; write it in quotes"),
        ("task__choices", ["no", "maybe"], "task.labels: 'yes' is not among task.choices"),
        ("task__query", "question", "task.query: 'question' names no field"),
        ("task__remove", "(", "task.remove: '(' is not a regular expression"),
        ("task__split__train", [], "task.split.train: the list is empty"),
        ("task__split__train", None, "task.split.train: null is not a list"),
        ("task__labels", [1], "is not a mapping"),
        ("task__nmae", "x", "task.nmae: there is no such setting. Did you mean task.name?"),
        ("task__hub", 3, "task.hub: 3 is not a group with the keys"),
        ("device", "gpu", "device: 'gpu' is not one of"),
        ("output_dir", "", "output_dir: '' is empty"),
        ("output_dir", __file__, "is a file"),
    ],
)
def test_a_wrong_value_is_named(key: str, value: Any, words: str) -> None:
    config, problems = build("optimize", with_values(**{key: value}))

    assert config is None
    assert any(words in problem for problem in problems), problems


def test_all_problems_come_at_once() -> None:
    plain = with_values(train__steps=-1, optimizer__lr="x", device="gpu", task__choices=[], template__text="{query}")
    del plain["evaluation"]

    _, problems = build("optimize", plain)

    wrong = ["train.steps", "optimizer.lr", "evaluation.batch_size", "evaluation.breakdown"]
    wrong += ["device", "template.text", "task.choices"]
    assert sorted(p.partition(":")[0] for p in problems) == sorted(wrong)


def test_only_the_form_of_the_template_in_use_is_checked() -> None:
    assert build("optimize", with_values(template__text="x", model__template="chat"))[1] == []
    assert build("optimize", with_values(template__messages=[], model__template="plain"))[1] == []


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    config, problems = build("optimize", with_values(task__data_dir="~", output_dir="~/out"))

    assert problems == []
    assert isinstance(config, OptimizeConfig)
    assert (config.task.data_dir, config.output_dir) == (str(tmp_path), str(tmp_path / "out"))


def test_only_formats_that_exist_are_exported() -> None:
    def formats(name: str) -> list[str]:
        return [problem for problem in build("export", {"format": name})[1] if problem.startswith("format:")]

    assert formats("embeds") == []
    assert "embeds" in formats("pfet")[0]


def test_one_value_of_a_sweep() -> None:
    assert check_value("optimize", "train.steps", 3) == []
    assert check_value("optimize", "train.steps", "x") != []
    assert check_value("optimize", "train", "x") == []


def test_nearest_key_prefers_the_same_last_part() -> None:
    known = ["train.batch_size", "evaluation.batch_size", "train.steps"]

    assert nearest_key("batch_size", known) == " Did you mean train.batch_size or evaluation.batch_size?"
    assert nearest_key("train.step", known) == " Did you mean train.steps?"
    assert nearest_key("zebra", known) == ""
