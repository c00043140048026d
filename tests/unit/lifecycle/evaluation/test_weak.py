"""Weak slices are named when they are weak, and hardly ever when they are not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulle.lifecycle.evaluation.weak import MIN_ROWS, weak_slices


def table(seed: int, n: int = 1_000) -> tuple[pl.DataFrame, np.ndarray]:
    random = np.random.default_rng(seed)
    columns = pl.DataFrame(
        {
            "place": random.choice(["a", "b", "c", "d"], n),
            "speed": random.normal(size=n),
            "sunny": random.random(n) < 0.3,
            "count": random.poisson(2, n),
            "id": [f"r{i}" for i in range(n)],
        }
    )
    return columns, random.exponential(2, n)


def test_noise_is_not_named() -> None:
    named = sum(bool(weak_slices(*table(seed), metric="mae")) for seed in range(200))
    assert named / 200 < 0.08, "one run in twenty at most should name a slice that is not weak"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["a", "b", "c", "d"]))
def test_a_weak_value_is_named_with_how_much_worse_it_is(seed: int, value: str) -> None:
    columns, losses = table(seed)
    inside = (columns["place"] == value).to_numpy()
    losses[inside] += 3
    found = weak_slices(columns, losses, metric="mae")[0]
    assert (found.column, found.value, found.metric) == ("place", value, "mae")
    assert found.rows == inside.sum()
    assert found.inside == pytest.approx(losses[inside].mean())
    assert found.outside == pytest.approx(losses[~inside].mean())
    assert 0 < found.low < found.worse == pytest.approx(found.inside - found.outside)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_what_is_named_is_large_enough_ranked_and_above_noise(seed: int) -> None:
    columns, losses = table(seed, n=400)
    losses += 2 * (columns["speed"].to_numpy() > 0.5) + 1.5 * columns["sunny"].to_numpy()
    found = weak_slices(columns, losses, metric="mae", most=10)
    assert all(s.rows >= MIN_ROWS and 0 < s.low <= s.worse for s in found)
    assert [s.low for s in found] == sorted((s.low for s in found), reverse=True)
    assert all(s.column != "id" for s in found)


def test_ranges_of_numbers_and_times_are_written_in_their_units() -> None:
    n = 1_000
    at = pl.Series("at", [datetime(2013, 1, 1, tzinfo=UTC) + timedelta(hours=i) for i in range(n)])
    losses = np.random.default_rng(0).random(n)
    losses[-200:] += 5
    found = weak_slices(pl.DataFrame([at, pl.Series("x", np.arange(n, dtype=float))]), losses, metric="mae")
    assert len(found) == 1, "both columns name the same rows; once is enough"
    assert found[0].value == "[2013-02-03T07:00, 2013-02-11T15:00]"
    only = weak_slices(pl.DataFrame({"x": np.arange(n, dtype=float)}), losses, metric="mae")
    assert only[0].value == "[799, 999]"


def test_nulls_and_truths_are_slices_too() -> None:
    random = np.random.default_rng(0)
    x = [None if i % 5 == 0 else float(v) for i, v in enumerate(random.normal(size=500))]
    losses = random.random(500) + np.array([2.0 if v is None else 0.0 for v in x])
    assert weak_slices(pl.DataFrame({"x": x}), losses, metric="mae")[0].value == "null"
    named = weak_slices(pl.DataFrame({"b": [v is None for v in x]}), losses, metric="mae")
    assert named[0].value == "true"


@pytest.mark.parametrize(
    ("columns", "losses"),
    [
        (pl.DataFrame({"x": ["a", "b"]}), np.array([1.0, 2.0])),
        (pl.DataFrame({"x": ["a"] * 500}), np.arange(500.0)),
        (pl.DataFrame({"x": ["a", "b"] * 250}), np.ones(500)),
        (pl.DataFrame({"x": ["a", "b"] * 250}), np.array([np.nan] + [1.0] * 499)),
        (pl.DataFrame({"x": [None] * 500}), np.arange(500.0)),
        (pl.DataFrame({"x": [float("nan"), float("inf")] * 250}), np.arange(500.0)),
        (pl.DataFrame({"x": [[1], [2]] * 250}), np.arange(500.0)),
        (pl.DataFrame(), np.arange(500.0)),
        (pl.DataFrame({"x": pl.Series([], dtype=pl.String)}), np.zeros(0)),
    ],
)
def test_nothing_to_compare_names_nothing(columns: pl.DataFrame, losses: np.ndarray) -> None:
    assert weak_slices(columns, losses, metric="mae") == ()
