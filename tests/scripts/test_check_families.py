"""The table of model families: what is equal, refused and different is told apart."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import check_families as script  # noqa: E402
from embedgrad_cli.core.passes.forward import Forward  # noqa: E402
from families.checks import CHECKS, Cell, Finding  # noqa: E402


@pytest.mark.parametrize(("family", "verdict"), [("qwen2", "equal"), ("falcon_h1", "refused")])
def test_a_family(family: str, verdict: str, tmp_path: Path) -> None:
    finding = script.check_family(family, tmp_path)
    assert {name: cell.verdict for name, cell in finding.cells.items()} == dict.fromkeys(CHECKS, verdict)
    assert all((cell.difference is None) is (verdict == "refused") for cell in finding.cells.values())


def test_a_window_that_is_forgotten_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a gap in every batch, a family with a window shorter than the rows gives other numbers."""
    monkeypatch.setattr(Forward, "allows_gaps", lambda *_: True)
    monkeypatch.setattr("embedgrad_cli.evaluation.arms.why_no_trunk", lambda *_: None)
    finding = script.check_family("mistral-sliding", tmp_path)
    assert finding.cells["logits by ids"].verdict == "differs"
    assert finding.cells["PEFT export"].verdict == "equal", "plain transformers reads the adapter"


@pytest.mark.slow
@pytest.mark.long
def test_the_command_writes_a_table_and_survives_a_family_that_dies(tmp_path: Path) -> None:
    command = [sys.executable, "scripts/check_families.py", "--only", "gpt2", "--markdown", str(tmp_path / "table.md")]
    ended = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "| gpt2 | = " in (tmp_path / "table.md").read_text()


def test_what_differs_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    for verdict, code in (("equal", 0), ("refused", 0), ("differs", 1)):
        cells = dict.fromkeys(CHECKS, Cell("equal", 0.0)) | {"gradient": Cell(verdict, words="why")}  # type: ignore[arg-type]
        monkeypatch.setattr(script, "check_families", lambda _, cells=cells: [Finding("gpt2", cells)])
        assert script.main(["--only", "gpt2"]) == code
