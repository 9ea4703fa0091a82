"""The help of a command: what each setting may be, and the word that asks for it."""

from __future__ import annotations

import pytest

from embedgrad_cli.cli import main as cli


def test_help_says_what_a_setting_may_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "--help"]) == 0
    rows = {line.split("=")[0].strip(): line for line in capsys.readouterr().out.splitlines() if "=" in line}
    assert rows["task.too_long"].endswith(" (error, skip)")
    assert rows["task.overlap"].startswith("  task.overlap=error ")  # no artifact says it
    assert rows["task.overlap"].endswith(" (error, exclude, allow)")
    assert rows["engine"].endswith("own decoding"), "which names vllm already"


def test_help_of_a_command_by_the_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "--help"]) == 0
    shown = capsys.readouterr().out
    assert cli.main(["help", "compare"]) == 0
    assert capsys.readouterr().out == shown
