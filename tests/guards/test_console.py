"""Tables on stdout: as wide as they want to be where nobody's window is too narrow for them."""

from __future__ import annotations

import pytest
from rich.table import Table

from embedgrad_cli.guards.console import UNBOUNDED, fits, for_results


@pytest.fixture
def wide() -> Table:
    """120 columns and its borders."""
    table = Table("a" * 60, "b" * 60)
    table.add_row("", "")
    return table


def test_a_file_is_as_wide_as_is_asked_for(wide: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert for_results(130).width == 130
    assert for_results().width == UNBOUNDED
    assert fits(for_results(130), wide)
    assert not fits(for_results(120), wide)


def test_a_terminal_is_as_wide_as_it_is(wide: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")  # by which Rich takes any file for a terminal
    assert for_results().width == 80
    assert not fits(for_results(), wide)
