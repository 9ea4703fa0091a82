"""Runs are found below a folder, and the folds of one setting are pooled as if they were one run."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.comparison.run_files import Capture, Records, summary, write_run

from embedgrad_cli.cli import main as cli
from embedgrad_cli.comparison.runs import find_runs, natural, pool_folds, read_run
from embedgrad_cli.errors import UserError

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_natural_order() -> None:
    assert sorted(["10", "2", "run10", "run2", "a", ""], key=natural) == ["", "2", "10", "a", "run2", "run10"]


def test_runs_are_found_below_a_folder(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        write_run(tmp_path / f"sweep/{number}")
    (tmp_path / "sweep/1/below").mkdir()
    write_run(tmp_path / "sweep/.hidden/1")
    write_run(tmp_path / "sweep/3/begun")
    (tmp_path / "sweep/3/begun/results.json").unlink()

    finished, unfinished = find_runs(tmp_path)

    assert [path.name for path in finished] == ["1", "2", "10"]
    assert [path.name for path in unfinished] == ["begun"]


def test_a_run_from_before_there_were_objectives_is_one_of_gold(tmp_path: Path) -> None:
    new, old = (write_run(tmp_path / name) for name in ("new", "old"))
    config = yaml.safe_load((old / "config.yaml").read_text())
    del config["objective"]
    (old / "config.yaml").write_text(yaml.safe_dump(config))
    assert read_run(old).config == read_run(new).config


@pytest.mark.parametrize("messages", ["system", 1, ["system"], {"role": "system"}])
def test_a_template_without_messages_is_named(messages: Any, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", template__messages=messages)
    with pytest.raises(UserError, match=r"run/config\.yaml: template\.messages"):
        read_run(run)


def folds(folder: str, seed: int, count: int = 3, **changes: Any) -> tuple[list[bool], list[bool]]:
    """Write the folds of one setting. Returns: all outcomes together."""
    draw = random.Random(seed)
    every: tuple[list[bool], list[bool]] = ([], [])
    for fold in range(count):
        n = draw.randrange(5, 20)
        first, second = ([draw.random() < share for _ in range(n)] for share in (0.4, 0.7))
        drift = {"mean_relative_l2": float(fold), "nearest_kept": fold, "num_tokens": 6}
        changed = {"kl": fold / 4, "first_token_kl": 1.0, "same_token": 0.5, "num_requests": 1, "num_tokens": 4}
        changed["by_request"] = {"a": fold / 4}  # type: ignore[assignment]
        results = summary(first, second, f"t{fold}-{n}", drift=drift, elsewhere=changed)
        write_run(Path(folder) / str(fold), results=results, task__fold=fold, **changes)
        every[0].extend(first)
        every[1].extend(second)
    return every


@pytest.mark.parametrize("seed", range(10))
def test_folds_are_pooled_as_if_they_were_one_run(seed: int) -> None:
    first, second = folds("s", seed)

    (pooled,) = pool_folds([read_run(Path(f"s/{fold}")) for fold in (2, 0, 1)])

    expected = summary(first, second, "")
    results = json.loads(json.dumps(pooled.results.to_json()))
    assert results["comparison"] == json.loads(json.dumps(expected["comparison"]))
    assert results["num_examples"] == expected["num_examples"]
    for name, arm in expected["arms"].items():
        assert {**results["arms"][name], "invalid": 0} == arm
    assert results["drift"] == {"mean_relative_l2": 1.0, "nearest_kept": 3, "num_tokens": 18}
    assert (results["elsewhere"]["kl"], results["elsewhere"]["by_request"]) == (0.25, {"a": 0.25})
    assert [path.name for path in pooled.paths] == ["0", "1", "2"]


def test_rows_of_pooled_folds_are_compared(capsys: Capture, records: Records) -> None:
    folds("s/low", 0, optimizer__lr=0.1)
    folds("s/high", 0, optimizer__lr=0.9)
    shown = records("s", "--sort", "lr")
    assert [(one["run"], one["runs"]) for one in shown] == [
        ("s/low/0 s/low/1 s/low/2", 3),
        ("s/high/0 s/high/1 s/high/2", 3),
    ]
    assert [key for key in shown[0] if key.startswith("config.")] == ["config.optimizer.lr"]
    assert cli.main(["compare", "s"]) == 0
    text = capsys.readouterr().out
    assert "high/{0,1,2}" in text
    assert "of 3 folds" in text

    (Path("s/low/2/results.json")).unlink()
    assert cli.main(["compare", "s"]) == 2, "two folds and three are not the same rows"
    assert "of 2 folds" in capsys.readouterr().err


def test_a_fold_on_its_own_is_a_run_like_others(records: Records) -> None:
    folds("s", 0, count=1)
    write_run(Path("s/other"), 5, json.loads(Path("s/0/results.json").read_text())["test_hash"])
    assert len(records("s")) == 2


def test_no_row_counts_twice(capsys: Capture) -> None:
    folds("s", 0)
    write_run(Path("s/again"), 5, "other", task__fold=1)
    assert cli.main(["compare", "s"]) == 2
    assert "s/0, s/1, s/2, s/again: these runs of one setting hold a fold twice" in capsys.readouterr().err
    write_run(Path("same/0"), task__fold=0)
    write_run(Path("same/1"), task__fold=1)
    assert cli.main(["compare", "same"]) == 2
    assert "tested on the same rows" in capsys.readouterr().err
