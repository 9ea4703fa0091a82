"""A chat template that writes today's date writes, for a prompt, the day of its optimisation, on any day."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.commands.test_resume_same import contents, evaluate_at, optimize_at, stopped
from tests.conftest import CHAT_TEMPLATE, evaluate_config, optimize_config, samples
from transformers import AutoTokenizer

import embedgrad_cli
from embedgrad_cli.cli.main import main
from embedgrad_cli.commands import evaluate
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.prompt.artifact import load_artifact, save_artifact
from embedgrad_cli.evaluation.answer_log import AnswerLog
from embedgrad_cli.exports.artifact_source import open_source
from embedgrad_cli.storage.artifact_header import read_header

FIRST, SECOND = "XXX+23:59", "XXX-23:59"  # time zones two days apart, but for two minutes
CLOCKS = {
    "strftime_now": "Today is {{ strftime_now('%A, %-d %B %Y') }}.\n",  # as SmolLM3, gpt-oss
    "date_string": "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "Today Date: {{ date_string }}\n",  # as Llama 3.2
}
ASKS = [{"role": "user", "content": "apples number 7"}]
Set = Callable[[str], None]


@pytest.fixture
def go_to(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Moves the clock, for the product and for transformers alike."""

    def go(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield go
    monkeypatch.undo()
    time.tzset()


@pytest.fixture(params=list(CLOCKS))
def place(request: pytest.FixtureRequest, tmp_path: Path, model_folder: Path, choice_data: Path) -> Path:
    shutil.copytree(model_folder, tmp_path / "model")
    shutil.copytree(choice_data, tmp_path / "data")
    (tmp_path / "model/chat_template.jinja").write_text(CLOCKS[request.param] + CHAT_TEMPLATE)
    return tmp_path


def read_by(run: Path) -> dict[str, list[str]]:
    """The hashes of what the model read, arm by arm."""
    lines = samples(run)
    return {arm: [line["prompt_hash"] for line in lines if line["arm"] == arm] for arm in {ln["arm"] for ln in lines}}


def evaluate_prompt(place: Path, name: str, **changes: Any) -> dict[str, list[str]]:
    command = ["evaluate", f"artifact={place / 'run/prompt.safetensors'}", f"output_dir={place / name}"]
    assert main([*command, *(f"{key}={value}" for key, value in changes.items())]) == 0
    return read_by(place / name)


def test_the_day_of_the_optimisation_is_kept(place: Path, go_to: Set, caplog: pytest.LogCaptureFixture) -> None:
    go_to(FIRST)
    optimize_at(place)()
    artifact = place / "run/prompt.safetensors"
    first = evaluate_prompt(place, "first")
    assert first == read_by(place / "run")
    assert main(["export", f"artifact={artifact}", "format=peft", f"output_dir={place / 'out-first'}"]) == 0
    source, prompt = open_source(artifact), embedgrad_cli.load(artifact)
    ids = source.encode(ASKS[0]["content"]).tokens
    embeds = prompt.apply(*_network(place), ASKS)["inputs_embeds"]

    go_to(SECOND)
    before = contents(place / "run")
    optimize_at(place)()  # is finished
    assert contents(place / "run") == before
    assert evaluate_prompt(place, "second") == first
    assert open_source(artifact).encode(ASKS[0]["content"]).tokens == ids
    again = embedgrad_cli.load(artifact).apply(*_network(place), ASKS)["inputs_embeds"]
    torch.testing.assert_close(again, embeds, rtol=0, atol=0)
    for format in ("model", "peft"):
        assert (
            main(["export", f"artifact={artifact}", f"format={format}", f"output_dir={place / f'out-{format}'}"]) == 0
        )
    rendered = [_rendered(place / f"out-{name}") for name in ("model", "peft", "first")]
    assert rendered[1] == rendered[2]
    go_to(FIRST)
    assert [_rendered(place / f"out-{name}") for name in ("model", "peft", "first")] == rendered
    day = read_header(artifact).model.chat_template_date
    assert evaluate_prompt(place, "other", **{"model.chat_template_date": "2020-02-02"}) != first
    assert day is not None
    assert "does not say for which day" not in caplog.text


def _network(place: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM

    return (kind.from_pretrained(place / "model") for kind in (AutoModelForCausalLM, AutoTokenizer))  # type: ignore


def _rendered(folder: Path) -> str:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    return tokenizer.apply_chat_template(ASKS, tokenize=False, add_generation_prompt=True)


@pytest.mark.parametrize(
    ("begin", "owner", "method", "number"),
    [(optimize_at, Forward, "_accumulate", 3), (optimize_at, AnswerLog, "add", 4), (evaluate_at, AnswerLog, "add", 2)],
    ids=["training", "test", "evaluation"],
)
def test_a_run_that_goes_on_the_next_day_renders_as_it_began(
    place: Path, go_to: Set, begin: Any, owner: type, method: str, number: int
) -> None:
    go_to(FIRST)
    begin(place)()
    whole = contents(place / "run")
    shutil.move(place / "run", place / "whole")
    again = stopped(begin(place), owner, method, number)
    go_to(SECOND)
    again()
    assert read_by(place / "run") == read_by(place / "whole")
    if "prompt.safetensors" in whole:
        assert (place / "run/prompt.safetensors").read_bytes() == whole["prompt.safetensors"]


def test_an_artifact_without_a_day_is_rendered_for_today(
    place: Path, go_to: Set, caplog: pytest.LogCaptureFixture
) -> None:
    """As versions did that recorded none, and a line says so."""
    go_to(FIRST)
    optimize_at(place)()
    file = place / "run/prompt.safetensors"
    artifact = load_artifact(file)
    metadata = replace(artifact.metadata, model=replace(artifact.metadata.model, chat_template_date=None))
    save_artifact(place / "old.safetensors", artifact.prompt, metadata)
    like = optimize_config(place / "unused", place / "model", place / "data")
    read = []
    for zone in (FIRST, SECOND):
        go_to(zone)
        caplog.clear()
        config = evaluate_config(like, place / f"evaluated{len(read)}", str(place / "old.safetensors"))
        evaluate.run(config)
        assert "does not say for which day" in caplog.text
        read.append(read_by(Path(config.output_dir)))
    assert read[0] != read[1]
