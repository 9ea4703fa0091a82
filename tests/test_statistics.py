"""Reference numbers from the papers, and properties that hold for all counts."""

from __future__ import annotations

import random

import pytest
from scipy.stats import binomtest

from embedgrad_cli.statistics import mcnemar, paired_difference, paired_difference_of_counts, verdict, wilson_interval


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [  # Newcombe 1998, Stat. Med. 17, 857-872, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval(correct: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(correct, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_equals_scipy_and_contains_the_proportion() -> None:
    for n in (1, 2, 7, 100, 5000):
        for correct in {0, 1, n // 3, n - 1, n}:
            low, high = wilson_interval(correct, n)
            reference = binomtest(correct, n).proportion_ci(method="wilson")
            assert (low, high) == pytest.approx((reference.low, reference.high), abs=1e-9)
            assert 0 <= low <= correct / n <= high <= 1


def test_wilson_interval_of_nothing_is_everything() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="3 correct of 2"):
        wilson_interval(3, 2)


def test_mcnemar_published() -> None:
    # Airway hyper-responsiveness (Bentur et al. 2009), in Fagerland, Lydersen and Laake 2013: exact p = 0.0703
    assert mcnemar(1, 7) == pytest.approx(0.0703, abs=5e-5)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (5, 5), (6, 5), (12, 2), (30, 70), (900, 700), (0, 300)])
def test_mcnemar_is_the_exact_binomial_test(wins: int, losses: int) -> None:
    reference = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert mcnemar(wins, losses) == pytest.approx(reference, rel=1e-9)
    assert mcnemar(wins, losses) == mcnemar(losses, wins)


def test_mcnemar_of_many_is_finite_and_quick() -> None:
    assert mcnemar(20_000, 20_500) == pytest.approx(binomtest(20_000, 40_500).pvalue, rel=1e-6)
    assert mcnemar(0, 5_000) == 0.0


def outcomes(both: int, candidate_only: int, baseline_only: int, neither: int) -> tuple[list[bool], list[bool]]:
    """Baseline's and candidate's outcomes with these counts."""
    cells = [(True, True)] * both + [(False, True)] * candidate_only
    cells += [(True, False)] * baseline_only + [(False, False)] * neither
    return [b for b, _ in cells], [c for _, c in cells]


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    [
        # Newcombe 1998, Stat. Med. 17, 2635-2650, table II, method 10
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((18, 12, 2, 18), 0.0562, 0.3290),
        ((53, 0, 0, 1), -0.0729, 0.0729),
        ((0, 30, 0, 0), 0.8395, 1.0000),
        # Altman, Machin, Bryant and Gardner 2000, Statistics with Confidence, table 6.2
        ((14, 5, 0, 22), 0.011, 0.226),
    ],
)
def test_paired_interval(cells: tuple[int, int, int, int], low: float, high: float) -> None:
    result = paired_difference(*outcomes(*cells))
    assert result["ci95"] == pytest.approx([low, high], abs=5e-4 if cells[0] == 14 else 5e-5)
    assert result["difference"] == pytest.approx((cells[1] - cells[2]) / sum(cells))
    assert (result["wins"], result["losses"]) == cells[1:3]


def test_swapping_the_arms_mirrors_the_result() -> None:
    draw = random.Random(0)
    for _ in range(50):
        n = draw.randrange(1, 60)
        first = [draw.random() < 0.4 for _ in range(n)]
        second = [draw.random() < 0.7 for _ in range(n)]
        there, back = paired_difference(first, second), paired_difference(second, first)
        low, high = there["ci95"]
        assert back["ci95"] == pytest.approx([-high, -low])
        assert -1 <= low <= there["difference"] <= high <= 1
        assert there["mcnemar_p"] == back["mcnemar_p"]


def test_paired_difference_needs_the_same_examples() -> None:
    for baseline, candidate in (([], []), ([True], [True, False])):
        with pytest.raises(ValueError, match="same examples"):
            paired_difference(baseline, candidate)


@pytest.mark.parametrize("counts", [(0, 0, 0, 0), (1, -1, 0, 3), (2, 1, 1, 3), (0, 0, 0, -1)])
def test_counts_that_do_not_fit_are_refused(counts: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="both right"):
        paired_difference_of_counts(*counts)


NAMES = {"baseline": "seed", "candidate": "optimized"}


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        ((300, 80, 20, 100), "optimized is better than seed by 12.0 points (95 % interval 8.2 to 15.8, p < 0.001"),
        (
            (300, 20, 80, 100),
            "optimized is worse than seed by 12.0 points (95 % interval -15.8 to -8.2, p < 0.001",
        ),
        ((300, 50, 48, 102), "no significant difference between optimized and seed (+0.4 points, 95 % interval -3."),
        ((5, 0, 0, 5), "no significant difference between optimized and seed (+0.0 points, 95 % interval"),
    ],
)
def test_verdict(cells: tuple[int, int, int, int], sentence: str) -> None:
    comparison = {**NAMES, **paired_difference(*outcomes(*cells))}
    assert verdict(comparison, sum(cells)).startswith(sentence)
