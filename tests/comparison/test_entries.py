"""Validation chooses, p is corrected for all lines, and the seeds of one setting share a line."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
from statsmodels.stats.multitest import multipletests
from tests.comparison.run_files import Capture, Records, summary, write_run

from embedgrad_cli.cli import main as cli

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_validation_orders_and_chooses_and_the_test_does_not(capsys: Capture, records: Records) -> None:
    for number, (validation, right) in {10: (0.5, 9), 2: (0.5, 8), 1: (0.3, 10), 3: (0.9, 4)}.items():
        write_run(Path(f"s/{number}"), right, validation=validation)
    shown = records("s")
    assert [one["run"] for one in shown] == ["s/3", "s/2", "s/10", "s/1"]  # what is equal, in natural order
    assert [one["chosen"] for one in shown] == [True, False, False, False]
    assert [one["chosen"] for one in records("s", "--sort=-candidate")] == [False, False, False, True]

    for format in ("table", "md"):
        assert cli.main(["compare", "s", "--format", format]) == 0
        (said,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Validation chose")]
        assert "chose run 3 (90.0 %): optimized 40.0 % (" in said


def test_of_equal_accuracies_validation_chooses_by_loss(records: Records) -> None:
    for number, loss in ((1, 0.5), (2, 0.25), (3, 0.75)):
        path = write_run(Path(f"s/{number}"))
        content = json.loads((path / "results.json").read_text())
        content["validation"]["loss"] = loss
        (path / "results.json").write_text(json.dumps(content))
    assert [one["run"] for one in records("s")] == ["s/2", "s/1", "s/3"]


@pytest.mark.parametrize("sort", ["-candidate", "-optimized", "p", "-difference"])
def test_a_test_figure_to_sort_by_is_spoken_of(sort: str, capsys: Capture) -> None:
    for number in range(2):
        write_run(Path(f"s/{number}"), optimizer__lr=number + 1)
    for key, told in ((sort, True), ("-validation", False), ("lr", False)):
        assert cli.main(["compare", "s", f"--sort={key}"]) == 0
        assert (f"({key.removeprefix('-')})" in capsys.readouterr().err) is told


def test_nothing_is_chosen_where_a_run_has_no_validation(records: Records) -> None:
    write_run(Path("s/0"), 3)
    write_run(Path("s/1"), results=summary([True] * 10, [True] * 10, "t"), optimizer__lr=0.5)
    assert [(one["run"], one["chosen"]) for one in records("s")] == [("s/0", None), ("s/1", None)]


def test_p_is_corrected_for_all_lines(records: Records) -> None:
    """Forty runs of which none is better than its seed: choosing the luckiest must not make it significant."""
    draw = random.Random(0)
    for number in range(40):
        first, second = ([draw.random() < 0.5 for _ in range(60)] for _ in range(2))
        write_run(Path(f"s/{number}"), results=summary(first, second, "t"), optimizer__lr=number + 1)
    shown = records("s", "--sort", "p")
    raw = [one["comparison.mcnemar_p"] for one in shown]
    assert raw[0] < 0.05
    assert [one["comparison.holm_p"] for one in shown] == pytest.approx(list(multipletests(raw, method="holm")[1]))
    assert min(one["comparison.holm_p"] for one in shown) > 0.05


def test_seeds_of_one_setting_share_a_line(capsys: Capture, records: Records) -> None:
    for lr, rights in ((0.1, (5, 7, 9)), (0.5, (4, 4, 10))):
        for seed, right in enumerate(rights):
            write_run(Path(f"s/{lr}-{seed}"), right, seed=seed, optimizer__lr=lr)
    low, high = records("s", "--sort", "lr")
    assert (low["seeds"], low["num_examples"], low["config.optimizer.lr"]) == (3, 10, 0.1)
    assert (low["arms.optimized.accuracy"], low["arms.optimized.accuracy.sd"]) == pytest.approx((0.7, 0.2))
    assert (high["comparison.difference"], high["comparison.difference.sd"]) == pytest.approx((0.4, 0.3464), abs=1e-4)
    assert (low["arms.seed.accuracy.sd"], high["validation.accuracy"]) == pytest.approx((0.0, 0.6))
    each = records("s", "--each-seed")
    assert len(each) == 6
    assert not any("arms.optimized.accuracy.sd" in one for one in each)
    of_low = sorted(one["comparison.mcnemar_p"] for one in each if one["config.optimizer.lr"] == 0.1)
    assert low["comparison.mcnemar_p"] == pytest.approx(1.5 * of_low[1]), "Rüger: 3/2 times the second smallest"

    assert cli.main(["compare", "s", "--format", "md"]) == 0
    assert "70.0 ± 20.0" in capsys.readouterr().out


def test_seeds_with_test_sets_of_their_own_are_compared_with_the_same_seeds(capsys: Capture, records: Records) -> None:
    for lr in (0.1, 0.5):
        for seed in range(3):
            write_run(Path(f"s/{lr}-{seed}"), 5, f"t{seed}", seed=seed, optimizer__lr=lr)
    assert [one["seeds"] for one in records("s")] == [3, 3]
    capsys.readouterr()
    assert cli.main(["compare", "s"]) == 0
    (flags,) = re.findall(r"compare (--.*) shows each", capsys.readouterr().out)
    assert cli.main(["compare", "s", *flags.split()]) == 0
    (Path("s/0.5-2/results.json")).unlink()
    assert cli.main(["compare", "s"]) == 2, "two seeds and three have not the same rows"


def test_folds_are_pooled_before_seeds(records: Records) -> None:
    for seed in range(2):
        for fold in range(3):
            write_run(Path(f"s/{seed}-{fold}"), 5 + seed, f"t{seed}{fold}", seed=seed, task__fold=fold)
    (pooled,) = records("s")
    assert (pooled["runs"], pooled["seeds"], pooled["num_examples"]) == (6, 2, 30)
    assert pooled["arms.optimized.accuracy"] == pytest.approx(0.55)


def test_a_seed_that_is_there_twice_is_not_averaged(records: Records) -> None:
    for number, seed in enumerate((1, 2, 2)):
        write_run(Path(f"s/{number}"), seed=seed)
    assert len(records("s")) == 3


def test_rows_that_a_prompt_had_seen_are_told(capsys: Capture) -> None:
    seen = {"num_rows": 4, "num_looked_up": 10, "expected_by_chance": 0.0}
    for number, excluded in enumerate((True, False)):
        told = summary([True] * 10, [True] * 10, "t", overlap={**seen, "excluded": excluded})
        write_run(Path(f"s/{number}"), results=told, optimizer__lr=number + 1)
    assert cli.main(["compare", "s"]) == 0
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "task.overlap=allow" in line]
    assert said.endswith(": 1.")


def test_answers_of_two_engines_are_not_compared_in_silence(capsys: Capture) -> None:
    write_run(Path("s/0"))
    write_run(Path("s/1"), engine="vllm")
    assert cli.main(["compare", "s", "--format", "md"]) == 0
    heads, _, *lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    place = [head.strip() for head in heads.split("|")].index("engine")
    assert sorted(line.split("|")[place].strip() for line in lines) == ["", "vllm"]
