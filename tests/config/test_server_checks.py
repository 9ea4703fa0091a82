"""What can be asked of a server, before it is asked."""

from __future__ import annotations

import pytest

from embedgrad_cli.config.compose import Request, check_line
from embedgrad_cli.config.schema import EvaluateConfig

SERVER = "server=http://127.0.0.1:8000"
TASK = ["template=system", "task=word-problems", "prompt=step-by-step"]


def problems(*words: str) -> list[str]:
    return check_line(Request("evaluate", [*TASK, *words])).problems


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["model=tiny", "arms=[served]"], "arms: served"),
        (["model=tiny", "arms=[none]", "texts.server=http://127.0.0.1:8000"], "texts.server"),
        (["model=tiny", "arms=[none]", "requests.model=x"], "requests.model"),
        ([SERVER, "arms=[bare]"], "arms: 'bare'"),
        ([SERVER, "arms=[none,served]"], "arms: none"),
        ([SERVER, "arms=['text:Think.',served]", "requests.model=x"], "arms: text:Think."),
        ([SERVER, "arms=[none]", "model.template=plain", "model.path=x"], "model.template"),
        ([SERVER, "arms=[none]", "task=reviews"], "task.kind"),
        ([SERVER, "arms=[none]", "+requests.extra={temperature: 1}"], "requests.extra.temperature"),
        ([SERVER, "arms=[none]", "requests.at_once=0"], "requests.at_once"),
        ([SERVER, "arms=[none]", "requests.timeout=0"], "requests.timeout"),
        ([SERVER, "arms=[none]", "requests.retries=-1"], "requests.retries"),
        ([SERVER, "arms=[none]", "texts.api_key=HOME"], "texts.api_key"),
        (["server=localhost:8000", "arms=[none]"], "server"),
        (["server=ftp://localhost", "arms=[none]"], "server"),
        (["server=http://", "arms=[none]"], "server"),
        (["server='http://[::1'", "arms=[none]"], "server"),
        ([SERVER, "texts.server=nowhere", "arms=[none]"], "texts.server"),
    ],
)
def test_what_cannot_be_asked(words: list[str], key: str) -> None:
    found = problems(*words)
    assert len(found) == 1, found
    assert found[0].startswith(key)


@pytest.mark.parametrize(
    "words",
    [
        [SERVER, "arms=[none,seed]"],
        [SERVER, "arms=[served]"],
        [SERVER, "arms=[served,seed]", "texts.model=base"],
        [SERVER, "arms=[served,'text:Think.']", "texts.server=https://example.org/openai/v1"],
        [SERVER, "arms=[none]", "task=reviews", "task.kind=generation", "task.grader=label"],
    ],
)
def test_what_can_be_asked_needs_no_model(words: list[str]) -> None:
    line = check_line(Request("evaluate", [*TASK, *words]))
    assert line.problems == []
    assert isinstance(line.config, EvaluateConfig)


def test_vectors_are_not_asked_by_chat() -> None:
    found = problems(SERVER, "arms=[optimized]", "artifact=tests/storage/old_run/prompt.safetensors")
    assert [problem.partition(" with")[0] for problem in found] == ["arms: 'optimized'"]
    assert "served" in found[0]


@pytest.mark.parametrize("value", [None, "", "two\nlines"])
def test_a_key_has_a_variable(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OUR_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("OUR_KEY", value)
    (problem,) = problems(SERVER, "arms=[none]", "requests.api_key=OUR_KEY")
    assert problem.startswith("requests.api_key")
    monkeypatch.setenv("OUR_KEY", "sk-1")
    assert problems(SERVER, "arms=[none]", "requests.api_key=OUR_KEY") == []


def test_what_is_secret_is_not_repeated() -> None:
    """Not a key in place of its variable's name, nor a password in an address."""
    for words in (
        ["requests.api_key=sk-SECRET"],
        ["server='http://me:SECRET@localhost'"],
        ["server='http://a/?k=SECRET'"],
    ):
        (problem,) = problems(SERVER, "arms=[none]", *words)
        assert "SECRET" not in problem
