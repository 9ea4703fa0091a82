"""The page says what the cells hold: folds pooled, seeds averaged, losses named, and what was not run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from embedgrad_cli.errors import UserError  # noqa: E402
from embedgrad_cli.evaluation.significance import mcnemar, wilson_interval  # noqa: E402
from embedgrad_cli.storage.files import write_json  # noqa: E402
from methods.records import (  # noqa: E402
    CELL,
    PROBLEM,
    SERIES,
    CellRecord,
    ProblemRecord,
    SeriesRecord,
    Trial,
    TriedText,
    read_work,
)
from methods.table import TITLES, arms_of, cells_of, rows_of  # noqa: E402
from results_page import main  # noqa: E402

RIGHT, HALF, WRONG = [True] * 20, [True, False] * 10, [False] * 20


class Work:
    """A work folder with made-up cells."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self,
        method: str,
        correct: Sequence[bool],
        *,
        seed: int = 0,
        fold: int | None = None,
        size: int = 64,
        model: str = "A-Model",
        task: str = "sst2",
        texts: Sequence[TriedText] = (),
        **changes: Any,
    ) -> None:
        series = self.folder / f"{task}-{model}"
        problem = series / f"n{size}-seed{seed}-{fold}"
        (problem / method).mkdir(parents=True)
        split = {} if fold is None else {"folds": 2}
        settings = {"task": {"split": split}, "train": {"steps": 50, "batch_size": 16}}
        command = ["python", "/home/somebody/scripts/compare_methods.py", "--model", "/home/somebody/a"]
        record = SeriesRecord(
            model=model,
            task=task,
            kind="choice",
            seed_prompt=["Say it."],
            settings=settings,
            model_digest="d",
            versions={"torch": "1"},
            command=" ".join([*command, "--set", "task.data_dir=/home/somebody/data"]),
        )
        write_json(series / SERIES, record)
        counts = {"train": size, "validation": 10, "test": len(correct)}
        write_json(
            problem / PROBLEM, ProblemRecord(seed=seed, fold=fold, counts=counts, split_hash=f"{seed}{fold}{size}")
        )
        trained = method.startswith(("embedgrad", "peft", "lora"))
        cell: dict[str, Any] = {"variant": None, "rates": [0.1, 0.3, 1.0] if trained else [], "texts": list(texts)}
        trials = [trial(lr) for lr in cell["rates"]]
        cell |= {"chosen": trials[1] if trained else None, "trials": trials, "seconds": 100.0, "threads": 1}
        answers = {f"test:{fold}:{number}": right for number, right in enumerate(correct)}
        cell |= {"method": method, "title": TITLES[method], "correct": answers, **changes}
        write_json(problem / method / CELL, CellRecord(**cell))

    def page(self, *more: str) -> str:
        out = self.folder / "docs" / "results.md"
        main([str(self.folder), "--out", str(out), *more])
        return out.read_text()


def trial(lr: float) -> Trial:
    numbers: dict[str, Any] = {"accuracy": 0.5, "loss": 1.0, "step": 25, "parameters": 1000, "seconds": 10.0}
    return Trial(lr=lr, peak_bytes=2_000_000_000, weights_before="w", weights_after="w", **numbers)


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path)


def line(page: str, start: str) -> list[str]:
    """The cells of the first row that begins so, in the table that has a column of learning rates."""
    (table,) = (part for part in page.split("\n\n") if part.startswith("| method |"))
    row = next(row for row in table.splitlines() if row.startswith(f"| {start} "))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_folds_are_pooled_before_anything_is_computed(work: Work) -> None:
    for fold, ours, theirs in ((0, RIGHT, WRONG), (1, HALF, RIGHT)):
        work.add("embedgrad", ours, fold=fold)
        work.add("lora", theirs, fold=fold)
    rows = {row.arm.method: row for row in rows_of(arms_of(read_work(work.folder)), "choice")}
    assert rows["embedgrad"].size == 40
    assert rows["embedgrad"].accuracies == [30 / 40]
    assert rows["embedgrad"].interval == wilson_interval(30, 40)
    assert rows["lora"].difference == pytest.approx((20 - 30) / 40)
    assert rows["lora"].p == mcnemar(wins=10, losses=20)
    assert line(work.page(), "LoRA r=8")[8:] == ["20", "200", "2,000"], "seconds of both folds, memory of one"


def test_a_seed_with_folds_missing_is_not_in_the_table(work: Work) -> None:
    work.add("embedgrad", RIGHT, fold=0)
    work.add("embedgrad", RIGHT, fold=1)
    work.add("lora", RIGHT, fold=0)
    assert line(work.page(), "LoRA r=8")[3] == "not run"


def test_seeds_are_averaged_and_their_p_combined(work: Work) -> None:
    for seed, theirs in enumerate((RIGHT, HALF, WRONG)):
        work.add("embedgrad", RIGHT, seed=seed)
        work.add("peft-text", theirs, seed=seed)
    (_, row) = rows_of(arms_of(read_work(work.folder)), "choice")
    assert row.accuracy == pytest.approx(0.5)
    assert row.p == pytest.approx(3 / 2 * mcnemar(0, 10)), "Rüger's: 3/2 times the second smallest"
    assert cells_of(row)[3] == "50.0 % (0.0 % to 100.0 %, 3 seeds)"


def test_only_rows_and_seeds_that_both_have_are_compared(work: Work) -> None:
    work.add("embedgrad", RIGHT, seed=0)
    work.add("lora", [*HALF, True, True], seed=0)
    work.add("lora", RIGHT, seed=1)
    (_, row) = rows_of(arms_of(read_work(work.folder)), "choice")
    assert row.accuracies == pytest.approx([12 / 22, 1])
    assert row.difference == pytest.approx(-0.5)


def test_it_says_where_embedgrad_loses_and_what_was_not_run(work: Work) -> None:
    work.add("embedgrad", HALF)
    work.add("lora", RIGHT)
    work.add("seed", WRONG)
    work.add("peft-text", [True, *HALF[1:19], True])
    page = work.page()
    assert "**embedgrad loses** to LoRA r=8 by 50.0 points" in page
    assert "It is behind PEFT prompt tuning, TEXT by 5.0 points" in page
    assert "significantly more accurate than seed prompt." in page
    assert line(page, "text search")[3] == "not run"
    assert line(page, "embedgrad, no trust region")[3] == "not run"
    assert "| A-Model | gsm8k |  | not run |" in page
    assert [title for title in TITLES.values() if f"\n| {title} |" not in page] == [TITLES["peft-vocab"]]


def test_the_reference_is_embedgrad_as_it_is_by_default(work: Work) -> None:
    work.add("embedgrad", HALF, variant="ball 0.25")
    (work.folder / "sst2-A-Model" / "n64-seed0-None" / "embedgrad").rename(
        work.folder / "sst2-A-Model" / "n64-seed0-None" / "earlier"
    )
    from methods.settings import compose, variant_of

    work.add("embedgrad", RIGHT, variant=variant_of(compose([])))
    rows = {row.arm.variant: row.difference for row in rows_of(arms_of(read_work(work.folder)), "choice")}
    assert rows["ball 0.25"] == pytest.approx(-0.5)


def test_the_rate_is_marked_if_it_is_an_end_of_the_sweep(work: Work) -> None:
    work.add("embedgrad", HALF)
    work.add("lora", HALF, chosen=trial(1.0))
    work.add("peft-text", HALF, chosen=trial(0.1), rates=[0.1], trials=[trial(0.1)])
    page = work.page()
    assert [line(page, TITLES[name])[1] for name in ("embedgrad", "lora", "peft-text")] == [
        "0.3 of 3",
        r"1\* of 3",
        "0.1 of 1",
    ]


def test_all_instructions_stand_there_with_their_validation(work: Work) -> None:
    tried = [TriedText(text=text, accuracy=0.5 + 0.1 * number, loss=1.0) for number, text in enumerate("abc")]
    work.add("instructions", HALF, texts=tried[::-1])
    work.add("instructions", HALF, seed=1, texts=tried[::-1])
    page = work.page()
    assert "| c | 70.0 % | 2 of 2 |\n| b | 60.0 % |  |\n| a | 50.0 % |  |" in page


def test_commands_name_no_folder_of_somebody_s(work: Work) -> None:
    work.add("embedgrad", HALF)
    page = work.page()
    assert "python scripts/compare_methods.py --model DIR --set task.data_dir=DIR\n" in page
    assert "somebody" not in page


def test_learning_curves_are_a_figure_and_a_table(work: Work) -> None:
    pytest.importorskip("matplotlib")
    for size, correct in ((16, WRONG), (64, HALF), (256, RIGHT)):
        work.add("embedgrad", correct, size=size)
    work.add("peft-text", WRONG, size=16)
    work.add("peft-text", WRONG, size=16, seed=1)
    work.add("peft-text", RIGHT, size=256)
    page = work.page()
    assert "| embedgrad | 0.0 % | 50.0 % | 100.0 % |" in page
    assert "| PEFT prompt tuning, TEXT | 0.0 % (0.0 % to 0.0 %) | not run | 100.0 % |" in page
    (figure,) = (work.folder / "docs/pictures").glob("*.svg")
    assert f"](pictures/{figure.name})" in page
    assert "training rows" in figure.read_text()
    before = figure.read_bytes()
    assert work.page() == page
    assert figure.read_bytes() == before


def test_a_note_is_added_to_the_page_as_one(work: Work) -> None:
    work.add("embedgrad", RIGHT)
    plain, noted = work.page(), work.page("--note", "It ran by night.")
    assert noted.replace("*A note by those who ran it:* It ran by night.\n\n", "") == plain != noted


def test_sections_of_other_cells_stay_as_they_were_written(work: Work, tmp_path: Path) -> None:
    work.add("embedgrad", RIGHT)
    out, before = work.folder / "docs" / "results.md", work.page("--note", "It ran by night.")
    later = Work(tmp_path / "later")
    later.add("embedgrad", HALF, task="gsm8k")
    later.add("embedgrad", HALF, model="B-Model", task="own")
    main([str(later.folder), "--out", str(out)])
    page = out.read_text()
    _, _, first = before.partition("## A-Model, sst2")
    assert f"## A-Model, sst2{first}\n## A-Model, gsm8k" in page, "in the order of tasks, then of models"
    overview = [row for row in page.split("## ")[1].splitlines() if row.startswith("| ")]
    shown = [tuple(cell.strip() for cell in row.strip("|").split("|"))[:3] for row in overview[2:]]
    mine = [("A-Model", "sst2", "20"), ("A-Model", "gsm8k", "20")]
    assert shown == [*mine, ("A-Model", "causal-judgement", ""), ("A-Model", "math", ""), ("B-Model", "own", "20")]


def test_a_section_is_written_anew_with_its_cells(work: Work, tmp_path: Path) -> None:
    for name in ("other", "another"):  # two series of one model and task
        work.add("embedgrad", RIGHT)
        (work.folder / "sst2-A-Model").rename(work.folder / name)
    out = tmp_path / "docs" / "results.md"
    twice = work.page()
    assert twice.count("## A-Model, sst2\n") == 2
    assert work.page() == twice
    later = Work(tmp_path / "later")
    later.add("embedgrad", HALF)
    main([str(later.folder), "--out", str(out)])
    assert out.read_text().count("## A-Model, sst2\n") == 1
    assert "100.0 %" not in out.read_text()


def test_kept_records_give_the_same_page_beside_cells_that_come_later(work: Work, tmp_path: Path) -> None:
    work.add("embedgrad", RIGHT)
    work.add("lora", HALF)
    page = work.page("--keep", str(tmp_path / "kept"), "--note", "It ran by night.")
    assert "It ran by night." in page
    kept = sorted((tmp_path / "kept").rglob("*.*"), key=lambda file: file.name)
    assert [file.name for file in kept] == [CELL, CELL, PROBLEM, SERIES]
    assert not any("somebody" in file.read_text() for file in kept), "they are for others to read"
    main([str(tmp_path / "kept"), "--out", str(tmp_path / "again.md")])
    assert (tmp_path / "again.md").read_text() == page
    later = Work(tmp_path / "later")
    later.add("seed", WRONG)
    file = later.folder / "sst2-A-Model" / SERIES
    write_json(file, replace(SeriesRecord.read(file), command="python scripts/compare_methods.py --only seed"))
    both = [
        str(tmp_path / "kept"),
        str(later.folder),
        "--out",
        str(tmp_path / "both.md"),
        "--keep",
        str(tmp_path / "kept"),
    ]
    main(both)
    written = (tmp_path / "both.md").read_text()
    assert "| seed prompt |  | 0 | 0.0 %" in written
    assert "| LoRA r=8 | 0.3 of 3 |" in written
    assert "--model DIR --set task.data_dir=DIR\npython scripts/compare_methods.py --only seed\n" in written
    main([str(tmp_path / "kept"), "--out", str(tmp_path / "once-more.md")])
    assert (tmp_path / "once-more.md").read_text() == written


def test_a_page_of_somebody_else_s_is_not_overwritten(work: Work, tmp_path: Path) -> None:
    work.add("embedgrad", RIGHT)
    (tmp_path / "mine.md").write_text("# Notes\n\n## What I saw, today\n\nRain.\n")
    with pytest.raises(UserError, match="What I saw"):
        main([str(work.folder), "--out", str(tmp_path / "mine.md")])
    assert "Rain" in (tmp_path / "mine.md").read_text()


def test_no_finished_cell_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="compare_methods"):
        main([str(tmp_path), "--out", str(tmp_path / "page.md")])
