"""What an accuracy, and a difference of two on the same examples, are worth. All numbers are fractions of 1.

wilson_interval(15, 20)                   # (0.531, 0.888)
result = paired_difference(seed_is_right, optimized_is_right)
verdict({"baseline": "seed", "candidate": "optimized", **result}, n=500)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

Z95 = NormalDist().inv_cdf(0.975)
SIGNIFICANT = 0.05


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


def paired_difference(baseline: Sequence[bool], candidate: Sequence[bool]) -> dict[str, Any]:
    """Accuracy of the candidate minus accuracy of the baseline, on the same examples in the same order.

    Returns: `difference`; `ci95`, by Newcombe's hybrid score interval for paired proportions (Newcombe 1998,
    "Improved confidence intervals for the difference between binomial proportions based on paired data", Stat.
    Med. 17, 2635-2650, method 10); `wins` (only the candidate is right), `losses` (only the baseline is), and
    `mcnemar_p`. Raises ValueError if there is no example or the lengths differ.
    """
    if not baseline or len(baseline) != len(candidate):
        raise ValueError(
            f"{len(baseline)} outcomes against {len(candidate)}: the same examples are needed, at least one"
        )
    pairs = list(zip(map(bool, candidate), map(bool, baseline), strict=True))
    both, wins, losses = pairs.count((True, True)), pairs.count((True, False)), pairs.count((False, True))
    return paired_difference_of_counts(both, wins, losses, len(pairs))


def paired_difference_of_counts(both: int, wins: int, losses: int, n: int) -> dict[str, Any]:
    """The same as `paired_difference`, from how often both are right, only the candidate, and only the baseline.

    Raises ValueError if there is no example or the counts do not fit n.
    """
    if n < 1 or min(both, wins, losses, n - both - wins - losses) < 0:
        raise ValueError(f"{both} both right, {wins} wins, {losses} losses of {n}")
    low, high = _newcombe_interval(both, wins, losses, n)
    return {
        "difference": (wins - losses) / n,
        "ci95": [low, high],
        "wins": wins,
        "losses": losses,
        "mcnemar_p": mcnemar(wins, losses),
    }


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


def verdict(comparison: Mapping[str, Any], n: int) -> str:
    """A plain sentence, without its full stop, about a `paired_difference` over n examples.

    `comparison` may also hold the names `baseline` and `candidate`. A difference counts if McNemar's p < 0.05.
    """
    baseline, candidate = comparison.get("baseline", "baseline"), comparison.get("candidate", "candidate")
    points = 100 * comparison["difference"]
    low, high = (100 * limit for limit in comparison["ci95"])
    p = comparison["mcnemar_p"]
    shown_p = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    basis = f"95 % interval {low:.1f} to {high:.1f}, {shown_p}, {n} examples"
    if p >= SIGNIFICANT:
        return f"no significant difference between {candidate} and {baseline} ({points:+.1f} points, {basis})"
    word = "better" if points > 0 else "worse"
    return f"{candidate} is {word} than {baseline} by {abs(points):.1f} points ({basis})"
