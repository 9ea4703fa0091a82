"""Single overrides: what a hint says to write is what was meant."""

from __future__ import annotations

import re
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from embedgrad_cli.config.overrides import OverrideChecker

GROUPS = {"model": ["tiny", "local"], "task": ["sst2"], "prompt": ["custom"], "template": ["system"]}


def problem_of(line: str) -> str:
    checker = OverrideChecker("optimize", GROUPS, list(GROUPS))
    assert checker.check([line]) == []
    (problem,) = checker.problems
    return problem


def accepted(words: str) -> list[str]:
    checker = OverrideChecker("optimize", GROUPS, list(GROUPS))
    lines = shlex.split(words)
    assert checker.check(lines) == lines, checker.problems
    return lines


@pytest.mark.parametrize("text", ["Don't stop, think.", 'Say "yes", or no.', 'Think, say "no"', "Why(now", "Ä?"])
def test_a_text_in_quotes_is_what_was_meant(text: str) -> None:
    problem = problem_of(f"prompt.text={text}")
    (line,) = accepted(re.search(r"within quotes: (.*); a list in brackets", problem)[1])  # type: ignore[index]
    assert OverridesParser.create().parse_override(line).value() == text


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("model='my models/é'", 'model=local model.path="my models/é"'),
        ("model=models/mine", "model=local model.path=models/mine"),
        ("task='a, b'", 'task.data_dir="a, b"'),
        ('prompt="It\'s so"', 'prompt=custom prompt.text="It\'s so"'),
        ("template='{query} {prompt}'", 'template.text="{query} {prompt}"'),
    ],
)
def test_what_belongs_to_a_key_is_said_so_that_it_is_read(line: str, says: str) -> None:
    assert " ".join(accepted(problem_of(line).partition(" Or ")[2].removesuffix("."))) == says
