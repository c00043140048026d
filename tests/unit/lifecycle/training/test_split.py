"""The split keeps the future out of training."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulle.core.declare.training import holdout
from mulle.core.errors import DataError
from mulle.lifecycle.training.split import split_rows, split_validation

START = datetime(2013, 1, 1, tzinfo=UTC)


def frame(hours):
    return pl.DataFrame({"at": [START + timedelta(hours=int(h)) for h in hours]}, schema={"at": pl.Datetime("us", "UTC")})


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(100, 400))
def test_every_row_is_used_once_and_the_holdout_is_later(seed, n):
    hours = np.random.default_rng(seed).integers(0, 24 * 60, n)
    rows = frame(hours)
    train, last = split_rows(rows, time="at", holdout=holdout("14d"), seed=seed)
    assert sorted([*train, *last]) == list(range(n))
    assert rows["at"].gather(train).max() < rows["at"].gather(last).min()
    assert hours[last].min() > hours.max() - 14 * 24


def test_without_time_a_seeded_share_is_kept():
    rows = frame(range(100))
    one = split_rows(rows, time=None, holdout=holdout(0.25), seed=3)
    again = split_rows(rows, time=None, holdout=holdout(0.25), seed=3)
    other = split_rows(rows, time=None, holdout=holdout(0.25), seed=4)
    assert len(one[1]) == 25
    assert one[1].tolist() == again[1].tolist() != other[1].tolist()


@pytest.mark.parametrize("hours", [range(5), range(24 * 10), [0] * 100])
def test_too_little_to_split_is_said_clearly(hours):
    with pytest.raises(DataError, match="rows"):
        split_rows(frame(hours), time="at", holdout=holdout("14d"), seed=0)


def test_a_row_without_time_is_named():
    rows = pl.concat([frame(range(50)), pl.DataFrame({"at": [None]}, schema={"at": pl.Datetime("us", "UTC")})])
    with pytest.raises(DataError, match="1 of 51 rows have no at"):
        split_rows(rows, time="at", holdout=holdout("1d"), seed=0)


def test_validation_is_the_latest_part_and_never_splits_an_instant():
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(20), 5))
    train, valid = split_validation(100, order, seed=0)
    assert order[train].max() < order[valid].min()
    assert len(valid) == 20


def test_validation_without_order_or_with_one_instant_is_random():
    assert len(split_validation(100, None, seed=0)[1]) == 20
    assert len(split_validation(100, np.zeros(100), seed=0)[1]) == 20
