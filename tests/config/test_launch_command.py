from __future__ import annotations

import shlex
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from embedgrad_cli.config.compose import Composer, Request, problems_of
from embedgrad_cli.config.launch_command import command_of, hydra_value

NOT_IN_ARTIFACTS = ("hydra", "output_dir", "device", "log_level")
TEXTS = [
    "Think.", "null", "yes", "1e3", "", " edge ", 'say "no"', "back\\slash", 'mixed \\" end\\', "a\nb", "it's {x}, [y]",
    "${model.path}", "step=1, 2", "Ünï – ∑", "#hash", "$HOME", "\\${x}",
]  # fmt: skip


def settings(*overrides: str) -> dict[str, Any]:
    """What an artifact holds of a run with these overrides."""
    composed: Any = OmegaConf.to_container(Composer().compose("optimize", list(overrides)), resolve=False)
    return {key: value for key, value in composed.items() if key not in NOT_IN_ARTIFACTS}


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_is_itself_in_an_override(text: str) -> None:
    override = OverridesParser.create().parse_override(f"key={hydra_value(text)}")
    assert OmegaConf.create({"key": override.value()}).key == text
    nested = OverridesParser.create().parse_override(f"key={hydra_value([{'content': text}, None, 0.5, True])}")
    assert OmegaConf.to_container(OmegaConf.create({"key": nested.value()}), resolve=True)["key"] == [
        {"content": text}, None, 0.5, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], "embedgrad optimize"),
        (["template=after-query", "seed=3"], "embedgrad optimize template=after-query seed=3"),
        (["task=sst2", "task.data_dir=data/sst2", "prompt=sentiment"],
         "embedgrad optimize prompt=sentiment task=sst2 task.data_dir=data/sst2"),
        (["prompt=custom", "prompt.text='Why not?'"], "embedgrad optimize 'prompt.text=\"Why not?\"'"),
        (["model=qwen2.5-0.5b", "optimizer=sgd", "optimizer.lr=0.5", "trust_region.kind=none"],
         "embedgrad optimize model=qwen2.5-0.5b optimizer=sgd optimizer.lr=0.5 trust_region.kind=none"),
    ],
)  # fmt: skip
def test_only_what_differs_is_said(overrides: list[str], expected: str) -> None:
    assert command_of(settings(*overrides)) == expected


@pytest.mark.parametrize(
    "overrides",
    [
        ["experiment=math-reasoning"],
        ["experiment=lab/reviews", "template.messages=[{role: user, content: '{query} \"{prompt}\" \\ '}]"],
        ["task=gsm8k", "task.split.num_validation=7", "task.split.train=[train,more]", "task.remove='<<.*?>>'"],
        ["task.query='{a}\n{b}'", "task.choices=[a,'b c']", "optimizer.betas=[0.5,0.9]", "train.patience=2"],
    ],
)
def test_the_line_gives_the_same_settings_again(overrides: list[str]) -> None:
    made = settings(*overrides)
    line = command_of(made)
    assert line is not None
    assert settings(*shlex.split(line)[2:]) == made


def test_settings_that_no_line_gives() -> None:
    """A line adds to a mapping of the shipped task; it cannot take something out of it."""
    made = settings("task=sst2")
    made["task"]["labels"] = {"2": "positive"}
    assert command_of(made) is None


def test_the_shortest_line_has_no_problems() -> None:
    line = command_of(settings("task=reviews", "train.steps=3"))
    assert line == "embedgrad optimize task=reviews train.steps=3"
    assert problems_of(Request("optimize", shlex.split(line)[2:])) == []
