"""Tables of results in a terminal: no cell is broken, however many arms and however long their names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rich.console import Console

from embedgrad_cli.storage.arm_records import ArmSummary, Breakdown, Comparison, ExtractionSummary
from embedgrad_cli.storage.results_record import Drift, Results
from embedgrad_cli.terminal import report

NAMES = ["none", "seed", *(f"text:Think about it {number} times, then answer in one word." for number in range(7))]


def arm(number: int) -> ArmSummary:
    strict, lenient = (ExtractionSummary(accuracy=0.5, correct=1, invalid=invalid) for invalid in (0, 1))
    ci95 = (0.411 + number / 100, 0.622)
    return ArmSummary(accuracy=0.5 + number / 100, ci95=ci95, correct=9, invalid=3, strict=strict, lenient=lenient)


def compared(name: str) -> Comparison:
    figures = {"difference": -0.123, "ci95": (-0.204, 0.155), "wins": 123, "losses": 145}
    return Comparison(baseline="seed", candidate=name, mcnemar_p=1e-6, holm_p=1e-6, **figures)  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [80, 110, 200])
def test_no_cell_is_broken(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(report, "for_results", lambda _: Console(force_terminal=True, width=width, highlight=False))
    arms = {name: arm(number) for number, name in enumerate(NAMES)}
    every = [compared(name) for name in NAMES if name != "seed"]
    summary = Results(
        task="sst2",
        split="test",
        num_examples=872,
        model="owner/model",
        arms=arms,
        comparison=every[1],
        comparisons=every,
        breakdowns={"level": {"easy": Breakdown(num_examples=40, arms=arms)}},
    )
    report.already_finished(tmp_path, summary)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    cells = [cell.strip() for line in lines if "│" in line for cell in line.split("│")[1:-1]]
    assert not any("…" in cell for cell in cells)
    for number in range(1, 8):
        assert f"text {number}" in cells
        assert f"text {number}: {NAMES[number + 1].removeprefix('text:')}" in lines
    assert cells.count("-20.4 to +15.5") == 8
    assert sum(cell.endswith("41.1% to 62.2%") or "(41.1% to 62.2%)" in cell for cell in cells) == 2


def test_what_grades_answers_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    report.answered(Path("my, [run]"))
    assert capsys.readouterr().out.endswith("embedgrad evaluate --regrade 'output_dir=\"my, [run]\"'\n")


def test_a_finished_run_says_again_what_it_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arms, one = {name: arm(0) for name in ("seed", "optimized")}, compared("optimized")
    drift = Drift(mean_relative_l2=0.61, nearest_kept=6, num_tokens=6)
    summary = Results(
        task="sst2",
        split="test",
        num_examples=872,
        num_skipped=3,
        model="owner/model",
        arms=arms,
        comparison=one,
        comparisons=[one],
        drift=drift,
    )
    report.results(summary, [], {}, tmp_path)
    said = [line for line in capsys.readouterr().out.splitlines() if line and not line.startswith("Written to")]
    assert any(line.startswith("Verdict: optimized is worse than seed") for line in said)
    report.already_finished(tmp_path, summary)
    assert capsys.readouterr().out.splitlines()[1:] == said
