"""`embedgrad report`, and the page that a run writes by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.comparison.run_files import Capture, summary, write_run
from tests.conftest import evaluate_config, optimize_config
from tests.reports.run_files import write_full_run

from embedgrad_cli.cli import main as cli
from embedgrad_cli.commands import evaluate, optimize

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_a_run_s_page_stands_in_it_or_where_it_is_told(capsys: Capture) -> None:
    run = write_full_run(Path("run"))
    assert cli.main(["report", "run"]) == 0
    assert capsys.readouterr().out == "run/report.html\n"
    assert cli.main(["report", "run", "output=elsewhere.html"]) == 0
    there, here = (run / "report.html").read_text(), Path("elsewhere.html").read_text()
    assert there == here


def test_a_sweep_is_sorted_by_validation_and_never_by_the_test() -> None:
    for number, (right, validation) in enumerate([(9, 0.5), (3, 0.8), (6, 0.6)]):
        write_run(Path(f"sweep/{number}"), right, validation=validation, optimizer__lr=10.0**-number)
    write_full_run(Path("other"))
    assert cli.main(["report", "sweep"]) == 0
    page = Path("sweep/report.html").read_text()
    order = [page.index(f'<th scope="row">{number}</th>') for number in (1, 2, 0)]
    assert order == sorted(order)
    chosen = page[page.index("<h1>") : page.index("</h1>")]
    assert "Validation chose run 1 (80.0 %): optimized 30.0 %" in chosen


def test_what_a_long_name_stands_for_is_no_headline() -> None:
    for number, right in enumerate((4, 6)):
        results = summary([True] * 2 + [False] * 8, [index < right for index in range(10)], "t")
        results["arms"]["text:Think step by step."] = results["arms"].pop("optimized")
        results["comparison"]["candidate"] = "text:Think step by step."
        write_run(Path(f"s/{number}"), results=results, train__steps=number)
    assert cli.main(["report", "s"]) == 0
    headline, rest = Path("s/report.html").read_text().split("</h1>")
    assert "so none is chosen" in headline
    assert "text: Think step by step." in rest


def test_runs_of_several_test_sets_and_links_to_their_pages() -> None:
    write_full_run(Path("a/0"))
    write_run(Path("a/1"), 4, test_hash="u")
    assert cli.main(["report", "a/0"]) == 0
    Path("pages").mkdir()
    assert cli.main(["report", "a/0", "a/1", "output=pages/all.html"]) == 0
    page = Path("pages/all.html").read_text()
    assert 'href="../a/0/report.html"' in page
    assert page.count("<h1>") == 2


def test_without_validation_nothing_is_chosen_and_nothing_is_drawn() -> None:
    for number, right in enumerate((4, 6)):
        answers = [index < right for index in range(10)]
        write_run(Path(f"s/{number}"), results=summary([True] * 2 + [False] * 8, answers, "t"), train__steps=number)
    assert cli.main(["report", "s"]) == 0
    page = Path("s/report.html").read_text()
    assert "so none is chosen" in page[page.index("<h1>") : page.index("</h1>")]
    assert "<svg" not in page


def test_unfinished_runs_are_named(capsys: Capture) -> None:
    write_run(Path("s/0"))
    write_run(Path("s/1"), optimizer__lr=0.5)
    (write_run(Path("s/2")) / "results.json").unlink()
    assert cli.main(["report", "s"]) == 0
    assert "s/2" in capsys.readouterr().err
    assert "s/2" in Path("s/report.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no folder"),
        (["a", "b"], "output=FILE.html"),
        (["a", "output=report.pdf"], "output=report.pdf"),
        (["a", "output=x.html", "output=y.html"], "2 times"),
        (["nowhere"], "nowhere"),
        (
            ["a", "format=md"],
            "embedgrad: format=md: there is no such folder, and `embedgrad report` takes no such setting",
        ),
        (["a", "--wide"], "--wide"),
        (["a", "output=nowhere/report.html"], "output=nowhere/report.html"),
    ],
)
def test_wrong_input(words: list[str], said: str, capsys: Capture) -> None:
    write_full_run(Path("a"))
    before = sorted(Path("a").iterdir())
    assert cli.main(["report", *words]) == 2
    assert said in capsys.readouterr().err
    assert sorted(Path("a").iterdir()) == before


def test_a_damaged_file_is_named_with_its_line(capsys: Capture) -> None:
    run = write_full_run(Path("a"))
    lines = (run / "samples.jsonl").read_text().splitlines()
    lines[4] = lines[4].replace('"correct": ', '"right": ', 1)
    (run / "samples.jsonl").write_text("\n".join(lines))
    assert cli.main(["report", "a"]) == 2
    assert "samples.jsonl, line 5" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_writes_its_page_unless_told_not_to(model_folder: Path, choice_data: Path) -> None:
    optimize.run(optimize_config(Path("run"), model_folder, choice_data))
    page = Path("run/report.html").read_bytes()
    results = json.loads(Path("run/results.json").read_text())
    assert f"{results['arms']['optimized']['accuracy']:.1%}".encode() in page
    assert cli.main(["report", "run"]) == 0
    assert Path("run/report.html").read_bytes() == page
    optimize.run(optimize_config(Path("run"), model_folder, choice_data, report=False))  # finished, and the same run
    assert Path("run/report.html").read_bytes() == page

    like = optimize_config(Path("run"), model_folder, choice_data)
    for name, wanted in (("with", True), ("without", False)):
        evaluate.run(evaluate_config(like, Path(name), "run/prompt.safetensors", report=wanted))
        assert Path(name, "report.html").exists() == wanted


@pytest.mark.slow
def test_a_page_that_fails_fails_no_run(model_folder: Path, choice_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise RuntimeError("no page")

    monkeypatch.setattr("embedgrad_cli.reports.write.render", fail)
    optimize.run(optimize_config(Path("run"), model_folder, choice_data))
    assert Path("run/results.json").exists()
    assert not Path("run/report.html").exists()
    assert "no page" in Path("run/embedgrad.log").read_text()


def test_one_arm_has_no_comparison() -> None:
    results = summary([True, False], [True, True], "t", comparison=None)
    results["arms"] = {"seed": results["arms"]["seed"]}
    write_run(Path("run"), results=results)
    assert cli.main(["report", "run"]) == 0
    assert "nothing was compared" in Path("run/report.html").read_text()
