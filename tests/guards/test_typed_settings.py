"""What is written for a person to type comes back from a shell and from Hydra as the text that it was."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from embedgrad_cli.guards.typed_settings import typed, typed_in_quotes
from embedgrad_cli.storage.interrupts import Stopped

TEXTS = ["outputs/demo", "/a/b-c_1.2", "my run", "a, b", "Ä/ü", "it's", '"', "''", 'say "hi"', "a(b)=[c]{d}", "x:y"]
TEXTS += ["null", "True", "1", "1e5", "1_000", "nan", "-", "", " a ", "\\", "C:\\runs\\", '\\"', "~/a", "$HOME", "a;b"]


def read_back(word: str) -> object:
    (override,) = shlex.split(word)
    parsed = OverridesParser.create().parse_override(override)
    assert parsed.key_or_group == "output_dir"
    return parsed.value()


@pytest.mark.parametrize("text", TEXTS)
def test_it_is_read_back(text: str) -> None:
    assert read_back(typed_in_quotes("output_dir", text)) == text
    back = read_back(typed("output_dir", text))
    assert (type(back), back) == (str, text)


def test_what_needs_no_quotes_has_none() -> None:
    assert typed("output_dir", Path("outputs/demo")) == "output_dir=outputs/demo"
    assert typed("output_dir", Path("my, run")) == "'output_dir=\"my, run\"'"


def test_a_stopped_run_says_how_it_goes_on() -> None:
    command = str(Stopped("after step 1", Path("my, ä run"))).partition("The same command with ")[2]
    assert read_back(command.removesuffix(" goes on from there.")) == "my, ä run"
