"""What an accuracy, and a difference of two on the same examples, are worth. All numbers are fractions of 1.

wilson_interval(15, 20)  # (0.531, 0.888)
paired_difference(seed_is_right, optimized_is_right).mcnemar_p
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

from embedgrad_cli.storage.arm_records import Comparison

Z95 = NormalDist().inv_cdf(0.975)
Z80 = NormalDist().inv_cdf(0.80)
SIGNIFICANT = 0.05
RESAMPLES = 10_000
FEWEST = 6  # with five examples even five wins have p = 0.0625


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of a candidate minus that of a baseline on the same examples.

    `ci95` is Newcombe's hybrid score interval for paired proportions (Newcombe 1998, "Improved confidence intervals for
    the difference between binomial proportions based on paired data", Stat. Med. 17, 2635-2650, method 10). `wins`:
    only the candidate is right; `losses`: only the baseline. `mcnemar_p`: see `mcnemar`.
    """

    difference: float
    ci95: tuple[float, float]
    wins: int
    losses: int
    mcnemar_p: float


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson 1927; Newcombe 1998, Stat. Med. 17, 857-872, method 3).

    Nothing observed (n = 0) leaves everything possible: (0, 1). Raises ValueError unless 0 <= correct <= n.
    """
    if not 0 <= correct <= n:
        raise ValueError(f"{correct} correct of {n}")
    if n == 0:
        return 0.0, 1.0
    z2 = Z95**2
    centre = (correct + z2 / 2) / (n + z2)
    half = Z95 / (n + z2) * math.sqrt(correct * (n - correct) / n + z2 / 4)
    # At the ends the limit is exactly 0 or 1; rounding must not say otherwise.
    low = 0.0 if correct == 0 else centre - half
    high = 1.0 if correct == n else centre + half
    return low, high


def mcnemar(wins: int, losses: int) -> float:
    """The exact two-sided p of McNemar's test: were wins and losses both as likely (binomial, 1/2)?

    The same as `scipy.stats.binomtest(wins, wins + losses).pvalue`, in whole numbers and without the import.
    Raises ValueError for a negative count.
    """
    if min(wins, losses) < 0:
        raise ValueError(f"{wins} wins, {losses} losses")
    discordant = wins + losses
    term = tail = 1  # C(discordant, 0), then the sum of C(discordant, k) for k up to the smaller count
    for k in range(min(wins, losses)):
        term = term * (discordant - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / 2**discordant)


def holm(p_values: Sequence[float]) -> list[float]:
    """p adjusted for as many comparisons (Holm 1979, Scand. J. Stat. 6, 65-70), in the order they came in.

    Comparing the adjusted p with 0.05 keeps the chance of any false alarm among all comparisons at 5 %.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def ruger(p_values: Sequence[float]) -> float:
    """One p for several tests of one question, however they depend on each other: K/k times the k-th smallest of K.

    Rüger (1978, "Das maximale Signifikanzniveau des Tests", Metrika 25, 171-178), as in Vovk and Wang (2020,
    Biometrika 107, 791-808); k is K/2, rounded up. Raises ValueError for none.
    """
    if not p_values:
        raise ValueError("no p to combine")
    k = (len(p_values) + 1) // 2
    return min(1.0, len(p_values) / k * sorted(p_values)[k - 1])


def paired_difference(baseline: Sequence[bool], candidate: Sequence[bool]) -> PairedDifference:
    """Compare which of the same examples, in the same order, two arms got right.

    Raises ValueError if there is no example or the lengths differ.
    """
    if not baseline or len(baseline) != len(candidate):
        raise ValueError(
            f"{len(baseline)} outcomes against {len(candidate)}: the same examples are needed, at least one"
        )
    pairs = list(zip(map(bool, candidate), map(bool, baseline), strict=True))
    both, wins, losses = pairs.count((True, True)), pairs.count((True, False)), pairs.count((False, True))
    return paired_difference_of_counts(both, wins, losses, len(pairs))


def paired_difference_of_counts(both: int, wins: int, losses: int, n: int) -> PairedDifference:
    """The same as `paired_difference`, from how often both are right, only the candidate, and only the baseline.

    Raises ValueError if there is no example or the counts do not fit n.
    """
    if n < 1 or min(both, wins, losses, n - both - wins - losses) < 0:
        raise ValueError(f"{both} both right, {wins} wins, {losses} losses of {n}")
    interval = _newcombe_interval(both, wins, losses, n)
    return PairedDifference((wins - losses) / n, interval, wins, losses, mcnemar(wins, losses))


def _newcombe_interval(both: int, wins: int, losses: int, n: int) -> tuple[float, float]:
    first, second, neither = both + wins, both + losses, n - both - wins - losses
    p1, p2, difference = first / n, second / n, (wins - losses) / n
    (low1, high1), (low2, high2) = wilson_interval(first, n), wilson_interval(second, n)
    margins = first * (n - first) * second * (n - second)
    agreement = both * neither - wins * losses
    # A positive correlation narrows the interval, so it is the one that gets the continuity correction.
    corrected = max(agreement - n / 2, 0) if agreement > 0 else agreement
    phi = corrected / math.sqrt(margins) if margins else 0.0

    def margin(a: float, b: float) -> float:
        return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))

    low = difference - margin(p1 - low1, high2 - p2)
    high = difference + margin(high1 - p1, p2 - low2)
    return max(low, -1.0), min(high, 1.0)


def bootstrap_interval(differences: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of a mean over examples by the percentile bootstrap (Efron and Tibshirani 1993, chapter 13).

    `differences` holds one number per example, the candidate's score minus the baseline's, so whole examples are
    drawn and pairs stay together. They take few distinct values, and how often a resample of n examples holds each is
    multinomial: so 10,000 resamples of 100,000 examples cost no more than of ten. Raises ValueError without examples.
    """
    import numpy as np  # here, so that `embedgrad compare` starts without it

    if not differences:
        raise ValueError("no example to draw from")
    values, counts = np.unique(np.asarray(differences, dtype=float), return_counts=True)
    n = int(counts.sum())
    means = np.random.default_rng(seed).multinomial(n, counts / n, size=RESAMPLES) @ values / n
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def gain_kept(
    seed: Sequence[bool], teacher: Sequence[bool], candidate: Sequence[bool]
) -> tuple[float | None, tuple[float, float] | None]:
    """The share of the teacher's gain over the seed that a candidate has, (c - s) / (t - s), and its 95 % interval.

    The interval is `bootstrap_interval`'s, whole examples being drawn. The share is None where the teacher has no gain;
    the interval where more than 2.5 % of the resamples give it none, because a ratio has no bounds then.
    Raises ValueError without examples.
    """
    import numpy as np

    if not seed:
        raise ValueError("no example to draw from")
    right = np.asarray([seed, teacher, candidate], dtype=float)
    gains = right[1:] - right[0]  # the teacher's, the candidate's
    if gains[0].sum() <= 0:
        return None, None
    kinds, counts = np.unique(gains, axis=1, return_counts=True)
    n = int(counts.sum())
    of_teacher, of_candidate = kinds @ np.random.default_rng(0).multinomial(n, counts / n, size=RESAMPLES).T
    share = float(gains[1].sum() / gains[0].sum())
    if np.mean(of_teacher <= 0) > 0.025:
        return share, None
    positive = of_teacher > 0
    low, high = np.quantile(of_candidate[positive] / of_teacher[positive], [0.025, 0.975])
    return share, (float(low), float(high))


def minimum_detectable_difference(n: int, discordant: int) -> float:
    r"""The smallest difference that McNemar's test at 5 % would find on n examples with a chance of 80 %.

    Connor (1987, Biometrics 43, 207-211): n = (z_a sqrt(psi) + z_b sqrt(psi - d^2))^2 / d^2, where psi is the share of
    examples on which two arms disagree, z_a = 1.96 and z_b = 0.84; here solved for d, with psi as it was seen. Arms
    that differ by d disagree on a share of d at least, so where psi would be less than d it is taken to be d. A normal
    approximation: the exact test needs a little more. 1 means that no difference can be found.
    """
    if n < 1 or not 0 <= discordant <= n:
        raise ValueError(f"{discordant} discordant of {n}")
    if n < FEWEST:
        return 1.0
    psi, a2, b2 = discordant / n, Z95**2, Z80**2
    difference = math.sqrt(psi) * (Z95 * math.sqrt(n) + Z80 * math.sqrt(n - a2 + b2)) / (n + b2)
    if 0 < difference <= psi:
        return difference
    # psi = d: with x = sqrt(1 - d), (n + b2) x^2 + 2 z_a z_b x + a2 - n = 0
    x = (math.sqrt(a2 * b2 + (n + b2) * (n - a2)) - Z95 * Z80) / (n + b2)
    return 1 - x * x


def clustered_mean(scores: Sequence[float]) -> tuple[float, float | None]:
    """The mean over all answers, and its standard error when the answers to one question belong together.

    `scores` holds each question's mean over equally many answers. Then the cluster-robust error (Liang and Zeger
    1986; Miller 2024, arXiv:2411.00640, section 2.2) is their standard deviation over sqrt(n), with Bessel's n - 1.
    Returns: mean and standard error, None where there is a single question, which says nothing of it.
    """
    error = stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else None
    return fmean(scores), error


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The chance that at least one of k answers is right, estimated without bias from n answers to one question.

    1 - C(n - correct, k) / C(n, k) (Chen et al. 2021, arXiv:2107.03374, equation 1).
    Raises ValueError unless 1 <= k <= n and 0 <= correct <= n.
    """
    if not (1 <= k <= n and 0 <= correct <= n):
        raise ValueError(f"{k} of {n} answers, {correct} correct")
    return 1 - math.comb(n - correct, k) / math.comb(n, k)


def verdict(comparison: Comparison, n: int) -> str:
    """A plain sentence, without its full stop, about a comparison over n examples.

    A difference counts if p < 0.05; where there are several comparisons, Holm's p.
    """
    baseline, candidate = comparison.baseline, comparison.candidate
    points = 100 * comparison.difference
    low, high = (100 * limit for limit in comparison.ci95)
    p = comparison.mcnemar_p if comparison.holm_p is None else comparison.holm_p
    corrected = "" if p == comparison.mcnemar_p else ", Holm-corrected"
    basis = f"95 % interval {low:.1f} to {high:.1f}, {show_p(p, 'p ')}{corrected}, {n} examples"
    if p >= SIGNIFICANT:
        smallest = 100 * minimum_detectable_difference(n, comparison.wins + comparison.losses)
        limit = "any difference" if smallest >= 100 else f"less than {smallest:.1f} points"
        return (
            f"no significant difference between {candidate} and {baseline} ({points:+.1f} points, {basis}): "
            f"{n} examples cannot show {limit}"
        )
    word = "better" if points > 0 else "worse"
    return f"{candidate} is {word} than {baseline} by {abs(points):.1f} points ({basis})"


def show_interval(limits: Sequence[float]) -> str:
    """Two limits, fractions of 1, for people: `show_interval((0.531, 0.888))` is "53.1% to 88.8%"."""
    low, high = limits
    return f"{low:.1%} to {high:.1%}"


def show_p(p: float, start: str = "") -> str:
    """A p for people: `show_p(0.02, "p ")` is "p = 0.020", `show_p(0.0002)` is "< 0.001"."""
    if p < 0.001:
        return f"{start}< 0.001"
    return f"{start}= {p:.3f}" if start else f"{p:.3f}"
