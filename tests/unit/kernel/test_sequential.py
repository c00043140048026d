"""An interval that is looked at again and again errs no more often than it says."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from mulle.core.errors import UsageError
from mulle.kernel.sequential import best_rho, cluster_means, confidence_sequence

LOOKS = [*range(50, 300, 10), *range(300, 2001, 50)]


@pytest.mark.parametrize("draw", ["normal", "skewed"])
def test_the_mean_is_missed_at_any_look_no_more_often_than_alpha(draw):
    rng = np.random.default_rng(4)
    missed = 0
    for _ in range(300):
        values = rng.normal(size=2000) if draw == "normal" else rng.exponential(size=2000) - 1
        bounds = (confidence_sequence(values[:t], 0.025) for t in LOOKS)
        missed += any(not low <= 0 <= high for low, _, high in bounds)
    assert missed / 300 <= 0.07


def test_looking_again_and_again_at_a_plain_interval_would_err_far_more_often():
    rng = np.random.default_rng(4)
    missed = 0
    for _ in range(200):
        values = rng.normal(size=2000)
        missed += any(abs(values[:t].mean()) > 1.96 * values[:t].std() / t**0.5 for t in LOOKS)
    assert missed / 200 > 0.2


def test_a_true_difference_is_found_soon():
    rng = np.random.default_rng(5)
    low, _, _ = confidence_sequence(rng.normal(0.3, 1, 500), 0.025)
    assert low > 0


def test_the_interval_is_tightest_where_rho_was_made_for():
    values = np.tile([-1.0, 1.0], 250)

    def width(rho: float) -> float:
        low, _, high = confidence_sequence(values, 0.05, rho)
        return high - low

    assert width(best_rho(500, 0.05)) < min(width(best_rho(20, 0.05)), width(best_rho(20_000, 0.05)))


def test_too_few_values_say_nothing():
    assert confidence_sequence(np.array([1.0]), 0.05) == (-np.inf, 1.0, np.inf)
    low, mean, high = confidence_sequence(np.array([]), 0.05)
    assert np.isnan(mean)
    assert (low, high) == (-np.inf, np.inf)


def test_nan_and_an_impossible_alpha_are_refused():
    with pytest.raises(UsageError):
        confidence_sequence(np.array([1.0, np.nan]), 0.05)
    with pytest.raises(UsageError):
        confidence_sequence(np.array([1.0, 2.0]), 1.5)


def test_rows_of_one_key_count_once():
    values, keys = pl.Series([1.0, 3.0, 5.0, None]), pl.Series(["a", "a", "b", "b"])
    assert cluster_means(values, keys).tolist() == [2.0, 5.0]


def test_clustering_keeps_the_promise_where_rows_of_a_key_are_alike():
    rng = np.random.default_rng(6)
    keys = pl.Series([str(i // 10) for i in range(4000)])
    naive = clustered = 0
    for _ in range(100):
        values = pl.Series(np.repeat(rng.normal(size=400), 10))
        low, _, high = confidence_sequence(values.to_numpy(), 0.025)
        naive += not low <= 0 <= high
        low, _, high = confidence_sequence(cluster_means(values, keys), 0.025)
        clustered += not low <= 0 <= high
    assert clustered <= 5
    assert naive > 20
