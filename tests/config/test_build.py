"""Schema and validator: every wrong value is named, and all are named at once."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal

import pytest

from embedgrad_cli.config.build import build, check_value
from embedgrad_cli.config.schema import OBJECTIVES, OptimizeConfig
from embedgrad_cli.config.spelling import nearest_key

PLAIN: dict[str, Any] = {
    "output_dir": "out",
    "seed": 0,
    "device": "cpu",
    "log_level": "info",
    "engine": None,
    "engine_args": None,
    "report": True,
    "quiet": False,
    "model": {"path": "Qwen/Q", "revision": None, "dtype": "auto", "template": "auto", "trust_remote_code": False}
    | {"attention": None},
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
        "score": "sum",
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
        "stop": None,
        "too_long": "skip",
    },
    "objective": {
        "name": None,
        "choice_weight": 1,
        "gold_weight": 0,
        "teacher": None,
        "samples": None,
        "temperature": None,
        "keep": None,
        "rounds": None,
        "unsolved": None,
        "mask": None,
        "reward": None,
        "teacher_examples": None,
        "top": None,
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
        "average": None,
        "token_dropout": None,
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
    ("key", "value"),
    [
        ("train__steps", "many"),
        ("train__steps", 1.5),
        ("train__steps", True),
        ("train__steps", -1),
        ("train__micro_batch_size", "many"),
        ("train__micro_batch_size", 0),
        ("train__batch_size", None),
        ("optimizer__lr", 0),
        ("optimizer__lr", float("inf")),
        ("optimizer__lr", float("nan")),
        ("optimizer__betas", [0.9]),
        ("optimizer__betas", [0.9, 1.0]),
        ("optimizer__name", "adamww"),
        ("objective__name", "golden"),
        ("objective__choice_weight", 0),
        ("objective__gold_weight", -0.5),
        ("train__average", 1.0),
        ("train__token_dropout", -0.1),
        ("model__trust_remote_code", "yes"),
        ("model__path", "./nowhere"),
        ("model__path", "a/b/c"),
        ("model__path", "embedded:nothing"),
        ("model__path", "???"),
        ("prompt__text", " "),
        ("prompt__text", ["a", "b"]),
        ("prompt__text", "Think \ud83d."),
        ("prompt__text", 3.5),
        ("template__text", "{query}"),
        ("template__text", "{prompt}"),
        ("template__text", "{prompt.1} {query}"),
        ("template__messages", "hello"),
        ("task__data_dir", "/no/such/folder"),
        ("task__data_dir", __file__),
        ("task__choices", None),
        ("task__choices", ["yes", "yes"]),
        ("task__query", "question"),
        ("task__remove", "("),
        ("task__split__train", []),
        ("task__split__train", None),
        ("task__labels", [1]),
        ("task__stop", 5),
        ("task__hub", 3),
        ("device", "gpu"),
        ("output_dir", ""),
        ("output_dir", __file__),
    ],
)
def test_a_wrong_value_is_named(key: str, value: Any) -> None:
    config, problems = build("optimize", with_values(**{key: value}))

    assert config is None
    assert key.replace("__", ".") in {problem.partition(":")[0] for problem in problems}, problems


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("template__messages", [{"role": "robot", "content": "{prompt}{query}"}], "template.messages[0].role"),
        ("template__messages", [{"role": "user"}], "template.messages[0].content"),
        ("task__hub__path", None, "task.data_dir"),
        ("task__choices", ["no", "maybe"], "task.labels"),
        ("task__choices", [True, False], "task.choices[0]"),
        ("task__stop", ["Q:", ""], "task.stop[1]"),
        ("task__stop", [r"\nQ:"], "task.stop[0]"),
        ("task__stop", ["Q:", True], "task.stop[1]"),
        ("task__choices", ["no", "yes\ude00"], "task.choices[1]"),
        ("task__nmae", "x", "task.nmae"),
    ],
)
def test_what_is_wrong_may_be_elsewhere(key: str, value: Any, named: str) -> None:
    _, problems = build("optimize", with_values(**{key: value}))
    assert named in {problem.partition(":")[0] for problem in problems}, problems


@pytest.mark.parametrize(
    ("key", "value", "meant"), [("optimizer__name", "adamww", "adamw"), ("task__nmae", "x", "task.name")]
)
def test_what_was_probably_meant_is_said(key: str, value: Any, meant: str) -> None:
    _, problems = build("optimize", with_values(**{key: value}))
    assert any(f"id you mean {meant}" in problem for problem in problems), problems


def test_an_experiment_without_its_first_line_is_told_of_it() -> None:
    _, problems = build("optimize", with_values() | {"experiment": {"train": {"steps": 2}}})
    assert any("# @package _global_" in problem for problem in problems), problems


def test_all_problems_come_at_once() -> None:
    plain = with_values(train__steps=-1, optimizer__lr="x", device="gpu", task__choices=[], template__text="{query}")
    del plain["evaluation"]

    _, problems = build("optimize", plain)

    wrong = ["train.steps", "optimizer.lr", "evaluation.batch_size", "evaluation.breakdown"]
    wrong += ["device", "template.text", "task.choices"]
    assert sorted(p.partition(":")[0] for p in problems) == sorted(wrong)


@pytest.mark.parametrize("kind", ["choice", "generation"])
def test_an_objective_that_is_left_open_is_the_kind_s(kind: Literal["choice", "generation"]) -> None:
    config, problems = build("optimize", with_values(task__kind=kind))
    assert problems == []
    assert isinstance(config, OptimizeConfig)
    assert config.objective.name == OBJECTIVES[kind]


def test_choices_are_not_ranked_where_answers_are_generated() -> None:
    _, (problem,) = build("optimize", with_values(objective__name="choice", task__kind="generation"))
    assert problem.startswith("objective: ")
    assert "task.kind=generation" in problem
    assert "objective=gold" in problem
    assert build("optimize", with_values(objective__name="choice"))[1] == []


REWARD = {"objective__name": "reward", "objective__samples": 4, "objective__temperature": 1.0}


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("objective", {"task__kind": "choice"}),
        ("objective.samples", {"objective__samples": 1}),
        ("objective.samples", {"objective__samples": None}),
        ("objective.temperature", {"objective__temperature": 0.0}),
        ("objective.temperature", {"objective__temperature": None}),
        ("objective.teacher", {"objective__teacher": "Think."}),
        ("objective.reward", {"objective__reward": "rewards.length"}),
        ("objective.reward", {"objective__reward": "rewards:"}),
        ("train.token_dropout", {"train__token_dropout": 0.1}),
    ],
)
def test_what_a_reward_does_not_go_with(key: str, changes: dict[str, Any]) -> None:
    generates = {**REWARD, "task__kind": "generation"}
    assert build("optimize", with_values(**generates))[1] == []
    assert build("optimize", with_values(**generates, objective__reward="my.rewards:length"))[1] == []
    _, (problem,) = build("optimize", with_values(**{**generates, **changes}))
    assert problem.startswith(f"{key}: ")


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


DRAWN = {"samples": 4, "temperature": 0.7, "keep": 2, "rounds": 1, "unsolved": "gold"}


def verified(**changes: Any) -> dict[str, Any]:
    objective = {f"objective__{key}": value for key, value in {**DRAWN, "name": "verified"}.items()}
    return with_values(**{**objective, "task__kind": "generation", "train__steps": 3, **changes})


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"task__kind": "choice"}, "objective", "objective=choice"),
        ({"objective__samples": None}, "objective.samples", "objective=verified"),
        ({"objective__unsolved": None}, "objective.unsolved", "objective=verified"),
        ({"objective__temperature": 0}, "objective.samples", "objective.temperature=0.7"),
        ({"objective__rounds": 4}, "objective.rounds", "train.steps=3"),
        ({"objective__mask": 0}, "objective.mask", "0"),
    ],
)
def test_what_does_not_fit_verified_or_a_mask_is_refused(changes: dict[str, Any], key: str, words: str) -> None:
    _, (problem,) = build("optimize", verified(**changes))
    assert problem.startswith(f"{key}: ")
    assert words in problem


OTHERS = {
    "mask": (0.1, "choice", "objective=gold"),
    "samples": (4, "gold", "objective=distill"),
    "temperature": (0.7, "gold", "objective=distill"),
    "teacher": ("Think.", "gold", "objective=distill"),
    "teacher_examples": (3, "choice", "objective=distill"),
    "top": (5, "choice", "objective=distill"),
    "keep": (2, "gold", None),
    "rounds": (2, "gold", None),
    "unsolved": ("skip", "gold", None),
    "reward": ("rewards:length", "gold", None),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_setting_of_another_objective_is_refused(name: str) -> None:
    value, chosen, instead = OTHERS[name]
    values = with_values(objective__name=chosen, task__kind="choice", **{f"objective__{name}": value})
    _, (problem,) = build("optimize", values)
    assert problem.startswith(f"objective.{name}: objective={chosen} does not read it. Leave it out")
    assert problem.endswith(f", or give {instead}." if instead else "Leave it out.")
    _, problems = build("optimize", {**values, "objective": {**values["objective"], "name": None}})
    assert bool(problems) == (name != "mask"), "null is gold, which a mask suits"


def test_what_fits_verified_and_a_mask_is_not_refused() -> None:
    assert build("optimize", verified())[1] == []
    assert build("optimize", verified(objective__temperature=0, objective__samples=1, objective__mask=0.1))[1] == []
    assert build("optimize", with_values(objective__mask=0.1))[1] == []
