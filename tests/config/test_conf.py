"""Every YAML file composes, is built as it says, says what it is, and knows the same keys as the schema."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from embedgrad_cli.config import tracker_checks
from embedgrad_cli.config.build import COMMANDS, keys
from embedgrad_cli.config.compose import Composer, Request, check_line, config_of
from embedgrad_cli.config.folder import conf_dir
from embedgrad_cli.config.schema import EvaluateConfig, OptimizeConfig

GROUPS = ("model", "template", "prompt", "task", "objective", "optimizer", "tracker", "experiment")
FILES = sorted(conf_dir().rglob("*.yaml"))
CHOICES = [
    path.relative_to(conf_dir()).with_suffix("").as_posix().split("/", 1) for path in FILES if path.parent != conf_dir()
]
NEEDS = {"bbh": ["task.name=navigate"], "local": ["model.path=owner/name"], "custom": ["prompt.text=Think"]}
NEEDS |= {"choice": ["task=reviews"], "distill": ["objective.teacher=Think"]}


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer()


def leaves(plain: Any, prefix: str = "") -> set[str]:
    if not isinstance(plain, dict) or prefix == "task.labels.":
        return {prefix.rstrip(".")}
    return set().union(*(leaves(value, f"{prefix}{name}.") for name, value in plain.items()))


def values(plain: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value of nested settings with the names that lead to it; none that refers to others or is left open."""
    if isinstance(plain, dict):
        for name, value in plain.items():
            yield from values(value, (*path, str(name)))
    elif "${" not in str(plain) and plain != "???":
        yield path, plain


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_and_is_built_as_it_says(
    group: str, choice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_checks, "tracker_missing", lambda tracker: None)
    config = config_of(Request("optimize", [f"{group}={choice}", *NEEDS.get(choice, [])]))

    assert isinstance(config, OptimizeConfig)
    content = yaml.safe_load((conf_dir() / group / f"{choice}.yaml").read_text())
    content.pop("defaults", None)
    content.pop("hydra", None)  # what a sweep goes over: tests/cli/test_dry_run.py
    built = asdict(config) if group == "experiment" else asdict(config)[group]
    for path, value in values(content):
        setting = built
        for name in path:
            setting = setting[name]
        assert setting == value, ".".join(path)


def test_the_main_configs_are_complete_but_for_the_artifact(composer: Composer) -> None:
    missing = {command: check_line(Request(command, [])).problems for command in COMMANDS}
    assert missing.pop("optimize") == []
    assert all(problem.startswith("artifact") for problems in missing.values() for problem in problems), missing

    words = ["model=tiny", "template=system", "task=word-problems", "arms=[none,'text:Think.']"]
    assert isinstance(config_of(Request("evaluate", words)), EvaluateConfig)


def test_no_file_is_left_out(composer: Composer) -> None:
    """A file on top is a command's, or one that commands build on; any other is a choice of a group that they name."""
    on_top = {path.stem for path in FILES if path.parent == conf_dir()}
    defaults = [yaml.safe_load((conf_dir() / f"{command}.yaml").read_text())["defaults"] for command in COMMANDS]
    groups = [composer.default_groups(command) for command in COMMANDS]
    assert on_top <= {*COMMANDS, *(name for names in defaults for name in names if isinstance(name, str))}
    assert {group for group, _ in CHOICES} <= {name for names in groups for name in names}


@pytest.mark.parametrize("command", COMMANDS)
def test_yaml_and_schema_know_the_same_keys(command: str, composer: Composer) -> None:
    cfg = OmegaConf.to_container(composer.compose(command, []), resolve=False)
    assert isinstance(cfg, dict)
    cfg.pop("hydra")

    assert leaves(cfg) == set(keys(command))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_file_begins_with_what_it_is(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    comment = [line for line in lines[:8] if line.startswith("# ") or line == "#"]

    assert lines[0].startswith("# ")
    if path.stem not in ("base", "model_and_task"):
        commands = [line for line in comment if line.startswith("#   embedgrad ")]
        group, _, choice = path.relative_to(conf_dir()).with_suffix("").as_posix().partition("/")
        chosen = f" {group}={choice}" if choice else f"embedgrad {group}"
        assert any(chosen in line for line in commands), "the exact command is missing"


def test_the_groups_that_are_promised(composer: Composer) -> None:
    groups = composer.groups()
    sizes = ("0.5b", "1.5b", "3b", "7b", "14b")
    qwen = {f"qwen2.5-{s}{tail}" for s in sizes for tail in ("", "-instruct")}
    qwen |= {f"qwen2.5-math-{s}{tail}" for s in ("1.5b", "7b") for tail in ("", "-instruct")}

    assert set(groups) == set(GROUPS)
    assert set(groups["model"]) > qwen | {"tiny", "local"}
    embedded = {"word-problems", "reviews", "causes"}
    real = {"gsm8k", "math", "sst2", "causal-judgement", "bbh"}
    assert set(groups["task"]) == embedded | real | {"recommend"}
    assert set(groups["objective"]) == {"gold", "choice", "verified", "reward", "distill"}
    assert set(groups["optimizer"]) == {"adamw", "adam", "sgd"}
    assert set(groups["tracker"]) == {"none", "tensorboard", "wandb", "mlflow", "trackio"}
    assert set(groups["prompt"]) == {
        "step-by-step",
        "sentiment",
        "causal-judgement",
        "recommend",
        "custom",
        "demonstrations",
    }
    lab = {f"lab/{task}" for task in embedded}
    paper = {f"paper/{family}" for family in ("math", "sentiment", "causal")}
    assert set(groups["experiment"]) == lab | paper | {"math-reasoning", "sentiment", "causal-judgement", "debug"}


def test_defaults_need_no_network(composer: Composer) -> None:
    cfg = composer.compose("optimize", [])

    assert cfg.model.path == "embedded:tiny"
    assert cfg.task.data_dir == "embedded:word-problems"


def test_a_later_task_brings_nothing_of_an_earlier_one(composer: Composer) -> None:
    task = composer.compose("optimize", ["task=gsm8k"]).task

    assert task.data_dir is None
    assert task.labels is None
    assert task.max_new_tokens == 320


def test_an_experiment_leaves_room_for_choices(composer: Composer) -> None:
    cfg = composer.compose("optimize", ["experiment=math-reasoning", "task=gsm8k", "train.steps=7"])

    assert (cfg.task.name, cfg.model.path, cfg.train.steps) == ("gsm8k", "Qwen/Qwen2.5-Math-1.5B", 7)
