"""What is said of results is the same, whoever says it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from embedgrad_cli.evaluation.significance import paired_difference_of_counts, verdict
from embedgrad_cli.reports.run_page import _comparisons
from embedgrad_cli.storage.arm_records import ArmSummary, Comparison
from embedgrad_cli.storage.artifact_metadata import TestSummary
from embedgrad_cli.storage.files import write_json
from embedgrad_cli.storage.results_record import Results
from embedgrad_cli.terminal import report
from embedgrad_cli.tracking.contents import outcome_of


def compared(candidate: str, wins: int, holm_p: float) -> Comparison:
    found = paired_difference_of_counts(10, wins, 0, 30)
    return Comparison(baseline="seed", candidate=candidate, holm_p=holm_p, **vars(found))


def test_a_verdict_is_the_same_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six wins are significant alone (p = 0.031), and not as one of two comparisons."""
    every = [compared("none", 0, 1.0), compared("optimized", 6, 0.0625)]
    arm = ArmSummary(accuracy=0.5, ci95=(0.3, 0.7), correct=15)
    arms = dict.fromkeys(("none", "seed", "optimized"), arm)
    results = Results(
        task="t", split="test", num_examples=30, model="m", arms=arms, comparison=every[1].promised, comparisons=every
    )
    said = verdict(every[1], 30)
    assert said.startswith("no significant difference")

    in_artifact = TestSummary.of(results).comparison
    assert in_artifact is not None
    assert verdict(in_artifact, 30) == said
    write_json(tmp_path / "results.json", results)
    assert outcome_of(tmp_path, "finished").verdict == said
    assert verdict(_comparisons(results)[0], 30) == said
    monkeypatch.setattr(report, "for_results", lambda _: Console(width=300))
    report.results(results, [], {name: [] for name in arms}, tmp_path)
    assert f"Verdict: {said}." in capsys.readouterr().out


def test_results_of_one_comparison_or_an_earlier_version_have_no_other_p() -> None:
    alone = replace(compared("optimized", 6, 0.03125), holm_p=None)
    results = Results(task="t", split="test", num_examples=30, model="m", arms={}, comparison=alone)
    assert results.main_comparison == alone
    assert replace(results, comparison=None).main_comparison is None
