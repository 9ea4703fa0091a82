"""Agreement with statsmodels, on many random counts."""

from __future__ import annotations

import random

import numpy as np
import pytest
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from embedgrad_cli.evaluation.significance import clustered_mean, holm, mcnemar, wilson_interval

CASES = 300


def test_wilson_interval() -> None:
    draw = random.Random(0)
    for _ in range(CASES):
        n = draw.randrange(1, 3000)
        correct = draw.randrange(n + 1)
        expected = proportion_confint(correct, n, method="wilson")
        assert wilson_interval(correct, n) == pytest.approx(expected, abs=1e-9)


def test_exact_mcnemar() -> None:
    draw = random.Random(1)
    for _ in range(CASES):
        wins, losses = draw.randrange(200), draw.randrange(200)
        expected = reference_mcnemar([[5, wins], [losses, 7]], exact=True).pvalue
        assert mcnemar(wins, losses) == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
def test_holm() -> None:
    draw = random.Random(2)
    for _ in range(5):  # the reference takes a third of a second each time
        p_values = [draw.choice([draw.random(), 0.01, 1.0, 0.0]) for _ in range(draw.randrange(1, 9))]
        assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_clustered_errors() -> None:
    draw = np.random.default_rng(3)
    for _ in range(30):
        questions, answers = int(draw.integers(2, 60)), int(draw.integers(1, 9))
        right = draw.random((questions, answers)) < draw.random((questions, 1))
        clusters = np.repeat(np.arange(questions), answers)
        fit = OLS(right.astype(float).ravel(), np.ones(right.size)).fit(
            cov_type="cluster", cov_kwds={"groups": clusters}
        )
        mean, error = clustered_mean(right.mean(axis=1).tolist())
        assert mean == pytest.approx(float(fit.params[0]))
        assert error == pytest.approx(float(fit.bse[0]), abs=1e-9)
