"""Reference numbers from the papers, and properties that hold for all counts."""

# ruff: noqa: PT011 - impossible counts are a ValueError; what it says is nobody's interface

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from embedgrad_cli.evaluation.significance import (
    bootstrap_interval,
    clustered_mean,
    gain_kept,
    holm,
    mcnemar,
    minimum_detectable_difference,
    paired_difference,
    paired_difference_of_counts,
    pass_at_k,
    ruger,
    verdict,
    wilson_interval,
)
from embedgrad_cli.storage.arm_records import Comparison


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
    with pytest.raises(ValueError):
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
    assert result.ci95 == pytest.approx([low, high], abs=5e-4 if cells[0] == 14 else 5e-5)
    assert result.difference == pytest.approx((cells[1] - cells[2]) / sum(cells))
    assert (result.wins, result.losses) == cells[1:3]


def test_swapping_the_arms_mirrors_the_result() -> None:
    draw = random.Random(0)
    for _ in range(50):
        n = draw.randrange(1, 60)
        first = [draw.random() < 0.4 for _ in range(n)]
        second = [draw.random() < 0.7 for _ in range(n)]
        there, back = paired_difference(first, second), paired_difference(second, first)
        low, high = there.ci95
        assert back.ci95 == pytest.approx([-high, -low])
        assert -1 <= low <= there.difference <= high <= 1
        assert there.mcnemar_p == back.mcnemar_p


def test_paired_difference_needs_the_same_examples() -> None:
    for baseline, candidate in (([], []), ([True], [True, False])):
        with pytest.raises(ValueError):
            paired_difference(baseline, candidate)


@pytest.mark.parametrize("counts", [(0, 0, 0, 0), (1, -1, 0, 3), (2, 1, 1, 3), (0, 0, 0, -1)])
def test_counts_that_do_not_fit_are_refused(counts: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError):
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
    comparison = Comparison(**NAMES, **vars(paired_difference(*outcomes(*cells))))
    assert verdict(comparison, sum(cells)).startswith(sentence)


def test_the_verdict_says_what_the_test_set_cannot_show() -> None:
    comparison = Comparison(**NAMES, **vars(paired_difference(*outcomes(80, 20, 16, 71))))
    assert verdict(comparison, 187).endswith("187 examples): 187 examples cannot show less than 8.9 points")
    assert verdict(Comparison(**NAMES, **vars(paired_difference([True], [False]))), 1).endswith(
        "1 examples cannot show any difference"
    )


def test_the_verdict_goes_by_the_corrected_p() -> None:
    comparison = Comparison(**NAMES, **vars(paired_difference(*outcomes(80, 26, 12, 69))))
    assert comparison.mcnemar_p < 0.05
    assert verdict(comparison, 187).startswith("optimized is better than seed")
    corrected = verdict(replace(comparison, holm_p=0.102), 187)
    assert corrected.startswith("no significant difference")
    assert "p = 0.102, Holm-corrected" in corrected


@pytest.mark.parametrize("tests", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("shared", [0.0, 0.5, 1.0])
def test_rugers_p_keeps_the_false_alarms_at_five_per_cent(tests: int, shared: float) -> None:
    """Where nothing is true, and the tests are independent, half the same, or all the same."""
    draw, alarms, runs = random.Random(tests), 0, 4000
    for _ in range(runs):
        common = draw.random()
        alarms += ruger([common if draw.random() < shared else draw.random() for _ in range(tests)]) < 0.05
    assert alarms / runs < 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5


def test_rugers_p_of_equal_tests() -> None:
    assert ruger([0.02]) == 0.02
    assert ruger([0.001] * 4) == pytest.approx(0.002)
    assert ruger([0.9, 0.8]) == 1.0
    with pytest.raises(ValueError):
        ruger([])


def test_holm_published() -> None:
    # R's help of p.adjust gives the rule; numbers by hand for p = (0.01, 0.04, 0.03, 0.005)
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.3]) == [0.3]
    assert holm([]) == []


def test_bootstrap_interval_is_that_of_drawing_pairs() -> None:
    differences = [1.0] * 20 + [-1.0] * 8 + [0.0] * 60 + [0.5] * 12
    draws = np.random.default_rng(1).choice(differences, size=(20_000, len(differences))).mean(axis=1)
    assert bootstrap_interval(differences) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.01)
    assert bootstrap_interval(differences, seed=3) == bootstrap_interval(differences, seed=3)
    assert bootstrap_interval([0.0, 0.0]) == (0.0, 0.0)
    with pytest.raises(ValueError):
        bootstrap_interval([])


@pytest.mark.parametrize(("n", "psi"), [(187, 0.19), (500, 0.1), (872, 0.05), (1319, 0.3)])
def test_the_minimum_detectable_difference_is_found_with_80_percent_power(n: int, psi: float) -> None:
    """McNemar's asymptotic test, which the formula is for, and the exact one, which needs a little more."""
    difference = minimum_detectable_difference(n, round(psi * n))
    chances = [(psi + difference) / 2, (psi - difference) / 2, 1 - psi]
    draws = np.random.default_rng(0).multinomial(n, chances, size=4_000)[:, :2]
    wins, losses = draws.T
    asymptotic = np.abs(wins - losses) / np.sqrt(np.maximum(wins + losses, 1)) > 1.96
    exact = [mcnemar(int(w), int(x)) < 0.05 for w, x in draws]
    assert asymptotic.mean() == pytest.approx(0.80, abs=0.03)
    assert 0.70 < np.mean(exact) < 0.82


def test_the_minimum_detectable_difference_never_exceeds_the_disagreement_it_needs() -> None:
    for n in (6, 10, 100, 5000):
        found = [minimum_detectable_difference(n, discordant) for discordant in range(0, n + 1, max(n // 20, 1))]
        assert all(0 < difference <= 1 for difference in found)
        assert all(a <= b + 1e-12 for a, b in itertools.pairwise(found)), "more disagreement hides more"
    assert minimum_detectable_difference(5, 5) == 1.0
    assert mcnemar(5, 0) > 0.05 > mcnemar(6, 0)
    with pytest.raises(ValueError):
        minimum_detectable_difference(4, 5)


def test_false_alarms_under_the_null_are_at_most_5_percent() -> None:
    """Arms that are equally good, more or less alike: single tests, and families of four by Holm."""
    draw = np.random.default_rng(0)
    for n, accuracy, agreement in [(40, 0.5, 0.0), (187, 0.6, 0.5), (500, 0.9, 0.8)]:
        single, family = 0, 0
        for _ in range(1_000):
            common = draw.random(n) < accuracy
            arms = np.where(draw.random((5, n)) < agreement, common, draw.random((5, n)) < accuracy)
            p = [mcnemar(int((arm & ~arms[0]).sum()), int((arms[0] & ~arm).sum())) for arm in arms[1:]]
            single += p[0] < 0.05
            family += min(holm(p)) < 0.05
        assert single <= 50, (n, accuracy, agreement)
        assert family <= 50, (n, accuracy, agreement)


@pytest.mark.slow
def test_bootstrap_interval_covers() -> None:
    draw, covered = np.random.default_rng(0), 0
    for seed in range(400):
        differences = draw.choice([1.0, -1.0, 0.0], size=200, p=[0.2, 0.1, 0.7])
        low, high = bootstrap_interval(differences.tolist(), seed)
        covered += low <= 0.1 <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_clustered_errors_are_larger_than_naive_ones_when_answers_agree() -> None:
    mean, error = clustered_mean([1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    assert (mean, error) == (0.5, pytest.approx(0.5345 / 8**0.5, abs=1e-4))
    assert clustered_mean([1.0]) == (1.0, None)


def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer() -> None:
    for n in range(1, 7):
        for correct in range(n + 1):
            for k in range(1, n + 1):
                subsets = list(itertools.combinations([i < correct for i in range(n)], k))
                assert pass_at_k(n, correct, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))
    with pytest.raises(ValueError):
        pass_at_k(2, 1, 3)


def drawn(*shares: float, n: int = 400) -> list[list[bool]]:
    """Seed, teacher and candidate: each right where a number of the row's own is below its share."""
    numbers = [random.Random(row).random() for row in range(n)]
    return [[number < share for number in numbers] for share in shares]


def test_the_gain_that_is_kept_is_a_ratio_of_differences() -> None:
    seed, teacher, candidate = drawn(0.5, 0.8, 0.77)
    share, interval = gain_kept(seed, teacher, candidate)
    assert share == pytest.approx((sum(candidate) - sum(seed)) / (sum(teacher) - sum(seed)))
    assert interval is not None
    assert interval[0] < share < interval[1] <= 1.0
    assert gain_kept(seed, teacher, teacher) == (1.0, (1.0, 1.0))


def test_the_interval_of_the_gain_that_is_kept_is_that_of_drawing_rows() -> None:
    arms = [
        [random.Random(f"{arm} {row}").random() < share for row in range(200)]
        for arm, share in enumerate((0.4, 0.8, 0.7))
    ]
    _, interval = gain_kept(*arms)
    rows, generator, ratios = np.array(arms, dtype=float), np.random.default_rng(1), []
    for _ in range(4000):
        seed, teacher, candidate = rows[:, generator.integers(200, size=200)].mean(axis=1)
        ratios.append((candidate - seed) / (teacher - seed))
    assert interval == pytest.approx(tuple(np.quantile(ratios, [0.025, 0.975])), abs=0.03)


def test_of_a_gain_that_may_be_none_nothing_is_said() -> None:
    seed, teacher, candidate = drawn(0.5, 0.5, 0.7)
    assert gain_kept(seed, teacher, candidate) == (None, None)
    wins_one = [not right if number == seed.index(False) else right for number, right in enumerate(seed)]
    share, interval = gain_kept(seed, wins_one, candidate)
    assert share == sum(candidate) - sum(seed)
    assert interval is None
    with pytest.raises(ValueError, match="no example"):
        gain_kept([], [], [])
