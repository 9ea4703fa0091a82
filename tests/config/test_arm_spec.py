"""What `arms=[…]` may say, as a user types it, and what is said when it is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from embedgrad_cli.cli import hydra_job
from embedgrad_cli.cli import main as cli
from embedgrad_cli.config.arm_spec import ArmSpec, choose_baseline, legend, parse_arm, quote_texts, short_names

PLAIN = ["model=tiny", "template=system", "task=word-problems"]


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """The configs that `evaluate` was called with, in an empty folder."""
    configs: list[Any] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hydra_job, "run_job", lambda config, overrides, on_validation: configs.append(config))
    return configs


@pytest.mark.parametrize(
    ("typed", "arms"),
    [
        ("arms=[none,bare]", ["none", "bare"]),
        ("arms=none", ["none"]),
        ('arms=[none,text:"Let\'s think step by step."]', ["none", "text:Let's think step by step."]),
        # what bash makes of arms=[none,text:"Let's think."] without quotes around it
        ("arms=[none,text:Let's think.]", ["none", "text:Let's think."]),
        ('arms=[text:"First, think; then (a) or [b].",none]', ["text:First, think; then (a) or [b].", "none"]),
        ('arms=[text:"Say \\"yes\\"."]', ['text:Say "yes".']),
        ("arms=[text:'It is \"so\".', none]", ['text:It is "so".', "none"]),
        ('arms=["text:Think.",none]', ["text:Think.", "none"]),
    ],
)
def test_arms_as_they_are_typed(typed: str, arms: list[str], received: list[Any]) -> None:
    assert cli.main(["evaluate", *PLAIN, typed]) == 0
    (config,) = received
    assert config.arms == arms
    assert config.prompt.text is None
    assert (config.artifact, config.mode) == (None, "full")


def test_the_baseline_is_typed_as_its_arm(received: list[Any]) -> None:
    text = 'text:"Think, then say."'
    assert cli.main(["evaluate", *PLAIN, f"arms=[none,{text}]", f"baseline={text}"]) == 0
    assert received[0].baseline == received[0].arms[1] == "text:Think, then say."


def test_flags_are_modes(received: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "--predict-only", *PLAIN, "arms=[none]"]) == 0
    assert received[0].mode == "predict-only"
    assert cli.main(["evaluate", "--predict-only", "--regrade", *PLAIN, "arms=[none]"]) == 2
    assert "give one of them" in capsys.readouterr().err
    assert cli.main(["optimize", "--regrade"]) == 2
    assert "unrecognized arguments: --regrade" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["arms=[none,sead]"], "mean seed?"),
        (["arms=[none,text:First, think.]"], "'think.'"),
        (["arms=[none,none]"], "arms: 'none'"),
        (["arms=[]"], "arms:"),
        (['arms=[none,text:""]'], "arms:"),
        (["arms=[none,seed]"], "prompt.text"),
        (["arms=[none,optimized]"], "artifact:"),
        (["arms=[none,gone.safetensors]"], "artifact=gone.safetensors"),
        (["arms=[none]", "baseline=seed"], "baseline: 'seed'"),
        (["arms=[none]", "generation.num_samples=4"], "generation.num_samples:"),
        (["arms=[none]", "generation.top_p=1.5"], "generation.top_p:"),
        (["arms=[none]", "task=reviews", "generation.temperature=1"], "generation:"),
        (["arms=[none]", "evaluation.breakdown=[level]"], "evaluation.breakdown: level"),
        (["arms=[none]", "mode=regrades"], "mean regrade"),
        (["--regrade", "output_dir=nowhere"], "nowhere/config.yaml"),
        (
            ["arms=[text:A]", "template.text='{query} {prompt.1}'", "prompt.text=[a,b]"],
            "arms: 'text:A'",
        ),
    ],
)
def test_what_is_wrong_is_said(
    line: list[str], words: str, received: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", *(PLAIN if "task=reviews" not in line else PLAIN[:2]), *line]) == 2
    assert words in capsys.readouterr().err
    assert received == []


def test_settings_that_no_artifact_brings_must_be_given(
    received: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", "arms=[none]"]) == 2
    said = capsys.readouterr().err
    assert all(f"{key}:" in said for key in ("model.path", "template.text", "task.query"))


def test_names() -> None:
    assert parse_arm("text: Think. ") == ArmSpec("text:Think.", "text", "Think.")
    assert parse_arm("a b/c.safetensors").kind == "artifact"
    assert choose_baseline(["none", "seed"], None) == "seed"
    assert choose_baseline(["bare", "none"], None) == "bare"
    assert choose_baseline(["bare", "none"], "none") == "none"
    assert quote_texts("prompt.text=[text:a]") == "prompt.text=[text:a]"


def test_long_names_are_labels_that_a_legend_explains() -> None:
    texts = [f"text:Think about it {number} times.\nThen answer." for number in range(7)]
    names = ["none", *texts, "text:Think.", "runs/a/prompt.safetensors"]
    short = short_names(names)
    assert len(set(short.values())) == len(names)
    assert max(map(len, short.values())) <= 16
    assert (short["none"], short["text:Think."], short[texts[0]], short[texts[6]]) == (
        "none",
        "text:Think.",
        "text 1",
        "text 7",
    )
    assert legend(names)[0] == "text 1: Think about it 0 times. Then answer."
    assert legend(names)[-1] == "file: runs/a/prompt.safetensors"
    assert len(legend(names)) == 8
    assert legend(["none", "seed"]) == []
