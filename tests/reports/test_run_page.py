"""The page of a run says what its run directory says, and needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
from pathlib import Path

import pytest
from tests.reports.run_files import NASTY, write_full_run

from embedgrad_cli.reports.write import REPORT, report_of_run, write_run_report


def page_of(run: Path) -> str:
    return write_run_report(run).read_text(encoding="utf-8")


def test_its_numbers_are_those_of_the_results(tmp_path: Path) -> None:
    run = write_full_run(tmp_path / "run")
    results, page = json.loads((run / "results.json").read_text()), page_of(run)
    for arm in results["arms"].values():
        low, high = arm["ci95"]
        assert f"{arm['accuracy']:.1%} ({low:.1%} to {high:.1%})" in page  # in the picture
        assert f"<td>{arm['accuracy']:.1%}</td><td>{low:.1%} to {high:.1%}</td><td>{arm['correct']}</td>" in page
    found = results["comparison"]
    assert f"{abs(100 * found['difference']):.1f} points" in re.search(r"<h1>(.*?)</h1>", page)[1]  # type: ignore[index]
    assert f"<td>{found['wins']}</td><td>{found['losses']}</td>" in page
    assert "the prompt after step 20 (accuracy 70.0%, loss 0.500), the best of 3" in page


def test_its_rows_add_up_to_the_results(tmp_path: Path) -> None:
    run = write_full_run(tmp_path / "run", num_rows=60)
    results = json.loads((run / "results.json").read_text())
    data = json.loads(re.search(r'id="data">(.*?)</script>', page_of(run))[1])  # type: ignore[index]
    right = {name: [bool(row[3][number][1][0][2]) for row in data["rows"]] for number, name in enumerate(data["arms"])}
    assert {name: sum(of_arm) for name, of_arm in right.items()} == {
        name: arm["correct"] for name, arm in results["arms"].items()
    }
    pairs = list(zip(right["seed"], right["optimized"], strict=True))
    assert pairs.count((False, True)) == results["comparison"]["wins"]
    assert pairs.count((True, False)) == results["comparison"]["losses"]


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    run = write_full_run(tmp_path / "run")
    first = write_run_report(run).read_bytes()
    assert write_run_report(run).read_bytes() == first
    assert write_run_report(run, tmp_path / "other.html").read_bytes() == first


def test_it_asks_nobody_and_runs_only_its_own_script(tmp_path: Path) -> None:
    page = page_of(write_full_run(tmp_path / "run"))
    assert not re.findall(r'(?:src|href|action)="(?!#)', page)
    assert "url(" not in page
    assert "@import" not in page
    assert not re.search(r"<[^>]+ (?:on\w+|style)=", page)  # which the policy would not let run
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    policy = html.unescape(policy)
    assert policy.startswith("default-src 'none';")
    for element in ("style", "script"):
        (text,) = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in policy


@pytest.mark.parametrize("nasty", NASTY)
def test_no_text_is_markup(nasty: str, tmp_path: Path) -> None:
    run = write_full_run(tmp_path / "run", text=lambda number: f"{nasty} {number}")
    results = json.loads((run / "results.json").read_text())
    results |= {"task": f"task {nasty}", "model": nasty, "advice": nasty}
    results["arms"][nasty] = results["arms"].pop("none")
    (run / "results.json").write_text(json.dumps(results))
    page, plain = page_of(run), page_of(write_full_run(tmp_path / "plain"))
    elements = re.compile(r"<!--|</?(?:script|img)\b[^>]*>")
    assert elements.findall(page) == elements.findall(plain)


def test_what_is_missing_is_said_and_no_obstacle(tmp_path: Path) -> None:
    run = write_full_run(tmp_path / "run")
    (run / "samples.jsonl").unlink()
    (run / "metrics.jsonl").unlink()
    page = page_of(run)
    assert "There is no samples.jsonl in this folder." in page
    assert "Nothing was trained here." in page
    assert "<script" not in page


def test_a_report_that_fails_is_logged_and_fails_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = write_full_run(tmp_path / "run")
    (run / "metrics.jsonl").write_text("not JSON\n")
    report_of_run(run, is_wanted=True)
    (record,) = caplog.records
    assert "metrics.jsonl, line 1" in record.getMessage()
    assert not (run / REPORT).exists()


def test_it_stays_below_three_megabytes(tmp_path: Path) -> None:
    run = write_full_run(tmp_path / "run", num_rows=10_000, text=lambda number: f"some words {number} " * 20)
    file = write_run_report(run)
    assert file.stat().st_size < 3_000_000
    shutil.rmtree(run)
