"""The page says what the runs hold: seeds make one setting, settings are compared on shared seeds, no test chooses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.comparison.run_files import summary, write_run

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

pytest.importorskip("matplotlib")

from embedgrad_cli.errors import UserError
from sweep_page import main
from sweeps.settings import read_sections


def add(
    folder: Path, validation: float, *, right: int = 5, test_hash: str = "t", model: str = "place/a", **changes: Any
) -> Path:
    """A finished run that validated before its first step, after 5 and after 10, which was the best."""
    chosen = {"accuracy": validation, "loss": 0.5, "step": 10}
    results = summary([True] * 2 + [False] * 8, [index < right for index in range(10)], test_hash)
    results |= {"validation": chosen, "steps": 10, "model": model}
    results |= {
        "data": {"duplicates_removed": 0, "contradictions": [], "overlaps_removed": {}, "counts": {"validation": 50}}
    }
    write_run(folder, results=results, **changes)
    lines = [
        {"step": step, "validation_accuracy": accuracy, "validation_loss": 2.0, "best": True}
        for step, accuracy in ((0, 0.1), (5, validation - 0.1), (10, validation))
    ]
    step = {"step": 1, "loss": 1.0, "grad_norm": 1.0, "lr": 0.1, "drift": 0.1, "tokens": 9, "seconds": 21.0}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, step]))
    return folder


def page_of(folder: Path, *more: str) -> str:
    out = folder / "docs" / "defaults.md"
    main([str(folder / "runs"), "--out", str(out), *more])
    return out.read_text()


def rows_of(page: str, first: str) -> list[list[str]]:
    """The cells of the table whose first column is called so."""
    table = next(part for part in page.split("\n\n") if part.startswith(f"| {first} |"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_the_seeds_of_a_setting_are_a_line_with_mean_and_range(tmp_path: Path) -> None:
    for seed, (validation, right) in enumerate([(0.6, 4), (0.8, 7), (0.7, 4)]):
        add(tmp_path / "runs" / f"a{seed}", validation, right=right, seed=seed, optimizer__lr=0.1)
    add(tmp_path / "runs" / "b", 0.4, optimizer__lr=0.3)
    first, second = rows_of(page_of(tmp_path), "lr")
    assert first[:3] == ["0.1", "0, 1, 2", "70.0 %: 60.0, 80.0, 70.0"]
    assert first[3:6] == ["best", "50.0 % (40.0 to 70.0)", "40.0, 70.0, 40.0"]
    assert first[6:] == ["10, 10, 10", "21", "0.50"]
    assert second[0] == "0.3"


def test_settings_are_compared_on_the_seeds_they_share(tmp_path: Path) -> None:
    """The second seed's rows are easy: whoever ran it alone is not better for that."""
    for seed, validation in enumerate([0.5, 0.9]):
        add(tmp_path / "runs" / f"a{seed}", validation, seed=seed, optimizer__lr=0.1)
    add(tmp_path / "runs" / "b", 0.89, seed=1, optimizer__lr=0.2)
    add(tmp_path / "runs" / "c", 0.95, seed=2, optimizer__lr=0.3)
    page = page_of(tmp_path)
    assert [(row[0], row[3]) for row in rows_of(page, "lr")] == [("0.1", "best"), ("0.2", "-1.0"), ("0.3", "")]
    assert "The best by validation: **lr 0.1** (70.0 %, seeds 0, 1). Within 2 points of it: lr 0.2." in page


def test_the_test_chooses_nothing(tmp_path: Path) -> None:
    add(tmp_path / "runs" / "a", 0.8, right=1, optimizer__lr=0.1)
    add(tmp_path / "runs" / "b", 0.7, right=9, optimizer__lr=0.3)
    assert [row[0] for row in rows_of(page_of(tmp_path), "lr")] == ["0.1", "0.3"]


def test_a_setting_of_several_sections_says_whether_it_is_near_the_best_of_all(tmp_path: Path) -> None:
    runs, sizes = tmp_path / "runs", {"a": 8, "b": 32}  # what a section shares names no setting
    for model, (small, large) in {"a": (0.80, 0.79), "b": (0.50, 0.60)}.items():
        add(
            runs / f"{model}1",
            small,
            model=f"place/{model}",
            optimizer__lr=0.1,
            model__path=f"place/{model}",
            train__batch_size=sizes[model],
        )
        add(
            runs / f"{model}2",
            large,
            model=f"place/{model}",
            optimizer__lr=0.3,
            model__path=f"place/{model}",
            train__batch_size=sizes[model],
        )
    page = page_of(tmp_path, "--titles", "a=First", "b=Second")
    assert rows_of(page, "setting") == [["lr 0.3", "-1.0", "+0.0", "2 of 2"], ["lr 0.1", "+0.0", "-10.0", "1 of 2"]]
    assert "| setting | First, words, n = 10 | Second, words, n = 10 |" in page
    assert "--titles a=First b=Second --out docs/defaults.md" in page


def test_what_changes_no_number_makes_no_setting(tmp_path: Path) -> None:
    add(tmp_path / "runs" / "a", 0.8, train__micro_batch_size=1)
    add(tmp_path / "runs" / "b", 0.8, seed=1, train__micro_batch_size=2)
    sections, _ = read_sections([tmp_path], {})
    assert [list(setting.by_seed) for section in sections for setting in section.settings] == [[0, 1]]


def test_a_prompt_may_hold_any_sign(tmp_path: Path) -> None:
    for number, text in enumerate(("Say a|b for $5 or $6.", "Think.")):
        add(tmp_path / "runs" / str(number), 0.8 - 0.1 * number, prompt__text=text)
    assert "| Say a\\|b for $5 or $6. | 0 |" in page_of(tmp_path)
    (picture,) = (tmp_path / "docs/pictures").glob("*-settings.svg")
    assert "Say a|b for $5 or $6." in picture.read_text()


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    add(tmp_path / "runs" / "a", 0.8)
    (add(tmp_path / "runs" / "begun", 0.8, seed=1) / "results.json").unlink()
    evaluation = add(tmp_path / "runs" / "evaluated", 0.8, seed=2) / "results.json"
    evaluation.write_text(json.dumps({**json.loads(evaluation.read_text()), "steps": None}))
    page = page_of(tmp_path)
    assert "`begun` is not finished." in page
    assert "`evaluated` is no optimisation." in page
    assert str(tmp_path) not in page


def test_a_seed_twice_is_refused(tmp_path: Path) -> None:
    for name in "ab":
        add(tmp_path / name, 0.8)
    with pytest.raises(UserError, match=r"a and .*b are runs of one setting and one seed"):
        read_sections([tmp_path], {})


def test_no_finished_run_is_said(tmp_path: Path) -> None:
    (add(tmp_path / "runs" / "begun", 0.8) / "results.json").unlink()
    with pytest.raises(UserError, match="begun"):
        page_of(tmp_path)


@pytest.mark.slow
def test_pictures_are_text_and_the_same_twice(tmp_path: Path) -> None:
    for number in range(8):
        add(tmp_path / "runs" / str(number), 0.8, optimizer__lr=0.1 + number)
    page = page_of(tmp_path)
    pictures = {file.name: file.read_bytes() for file in (tmp_path / "docs/pictures").glob("*.svg")}
    assert [f"](pictures/{name})" in page for name in pictures] == [True, True]
    assert all(b"lr 7.1" in content for content in pictures.values()), "of eight settings none is left out"
    assert b"<dc:date>" not in b"".join(pictures.values())
    assert page_of(tmp_path) == page
    assert {file.name: file.read_bytes() for file in (tmp_path / "docs/pictures").glob("*.svg")} == pictures
