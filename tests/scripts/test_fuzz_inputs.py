"""Some dozens of the inputs of `make fuzz`, always the same ones; and a fault is found, made small and found again."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
OLD_RUN = Path(__file__).parents[1] / "storage/old_run"
# As many as a few seconds allow.
NAME = "input"
TRIES = {"artifacts": 25, "lines": 6, "trees": 6, "tables": 80, "chat-templates": 3}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("fuzz_inputs")


@pytest.mark.parametrize(("kind", "tries"), TRIES.items())
def test_every_input_ends_in_a_result_or_a_paragraph(kind: str, tries: int, script: ModuleType, tmp_path: Path) -> None:
    shutil.copytree(OLD_RUN, tmp_path / "run")
    tally = script.fuzz(kind, script.strategy(kind, tmp_path), tries, 0, shrink=False)
    assert tally.faults == []
    assert sum(tally.codes.values()) == tally.tried == tries
    assert "2" in tally.codes, "some of them are broken"


@pytest.mark.slow
def test_every_run_folder_does(script: ModuleType, tmp_path: Path) -> None:
    tally = script.fuzz("runs", script.strategy("runs", script.runs.make_base(tmp_path)), 12, 0, shrink=False)
    assert tally.faults == []


def cases(script: ModuleType, call: Any) -> Any:
    """Texts of some length as a file, which `call` is given."""
    return script.tables.texts.map(
        lambda text: script.Case({NAME: text.encode(errors="replace")}, call=call, names=(NAME,))
    )


def test_a_fault_is_found_and_found_again(script: ModuleType) -> None:
    def call(folder: Path) -> None:
        if len((folder / NAME).read_bytes()) > 2:
            raise ZeroDivisionError

    once, again = (script.fuzz("tables", cases(script, call), 20, 0) for _ in range(2))
    assert once.faults == again.faults
    assert "ZeroDivisionError" in once.faults[0]["fault"]


@pytest.mark.parametrize("harm", ["changes", "names nothing", "commands the terminal", "is not ours"])
def test_what_a_fault_is(harm: str, script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from embedgrad_cli.errors import EmbedgradError, UserError

    def call(folder: Path) -> None:
        if harm == "changes":
            (folder / NAME).write_text("something else")
        raise (
            EmbedgradError(NAME)
            if harm == "is not ours"
            else UserError({"names nothing": "?"}.get(harm, f"{NAME}\x1b"))
        )

    if harm == "commands the terminal":
        monkeypatch.setattr("fuzz.case.visible", str)
    assert len(script.fuzz("tables", cases(script, call), 1, 0).faults) == 1
