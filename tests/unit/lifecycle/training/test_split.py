"""The split keeps the future out of training."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mulle as ml
from mulle.core.declare.training import expanding, groups, holdout, kfold, sliding, stratified
from mulle.core.errors import DataError
from mulle.lifecycle.training.split import split_folds, split_rows, split_validation

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


@pytest.mark.parametrize(("hours", "late"), [(24 * 10, 48), (24 * 365, 24 * 14)])
def test_the_default_keeps_two_weeks_but_never_more_than_a_fifth_of_a_short_past(hours, late):
    rows = ml.Dataset("rows", ml.Files("rows.csv"), key="id", time="at", outcome=["y"])
    features = ml.features(rows)(lambda found: found)
    train, last = split_rows(
        frame(range(hours)), time="at", holdout=ml.Model("m", features=features, target="y", task="regression").split, seed=0
    )
    assert len(last) == pytest.approx(late, abs=1)
    assert len(train) == hours - len(last)


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


HOURS = np.random.default_rng(0).permutation(np.repeat(np.arange(100), 4))


def parts(validation, **more):
    return split_folds(400, HOURS, validation, **{"seed": 0} | more)


@pytest.mark.parametrize("folds", [2, 5])
def test_expanding_folds_train_on_all_that_came_before_and_score_the_next_block(folds):
    found = parts(expanding(folds))
    assert len(found) == folds
    for train, valid in found:
        assert HOURS[train].max() + 1 == HOURS[valid].min()
        first = HOURS[valid].min()
        assert len(train) == (first > HOURS).sum()
    assert [len(t) for t, _ in found] == sorted(len(t) for t, _ in found)
    assert max(HOURS[valid].max() for _, valid in found) == 99


def test_sliding_folds_train_on_the_span_just_before():
    for train, valid in parts(sliding("10s"), span=10.0):
        assert HOURS[valid].min() - HOURS[train].min() == 10
        assert HOURS[train].max() < HOURS[valid].min()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 6), st.integers(6, 50))
def test_groups_are_never_on_both_sides_and_each_row_is_scored_once(seed, folds, many):
    codes = np.random.default_rng(seed).integers(0, many, 400)
    codes = np.unique(codes, return_inverse=True)[1]
    found = parts(groups("g", folds=folds), groups=codes, seed=seed)
    assert sorted(np.concatenate([v for _, v in found]).tolist()) == list(range(400))
    for train, valid in found:
        assert not set(codes[train]) & set(codes[valid])
        assert len(train) + len(valid) == 400


def test_stratified_folds_have_each_class_in_its_share_and_each_range_of_a_number():
    classes = np.array(["rare"] * 40 + ["common"] * 360, dtype=object)
    numbers = np.random.default_rng(0).exponential(size=400)
    for _, valid in parts(stratified(5), strata=classes):
        assert (classes[valid] == "rare").sum() == 8
    means = [numbers[v].mean() for _, v in parts(stratified(5), strata=numbers)]
    random_means = [numbers[v].mean() for _, v in parts(kfold(5))]
    assert np.std(means) < np.std(random_means) / 4


def test_random_folds_score_each_row_once_and_repeat_with_the_seed():
    one, again, other = parts(kfold(4)), parts(kfold(4)), parts(kfold(4), seed=1)
    assert sorted(np.concatenate([v for _, v in one]).tolist()) == list(range(400))
    assert [v.tolist() for _, v in one] == [v.tolist() for _, v in again] != [v.tolist() for _, v in other]


@pytest.mark.parametrize(
    ("validation", "more"),
    [
        (expanding(3), {"order": None}),
        (groups("g"), {"groups": np.zeros(400, dtype=np.int64)}),
        (expanding(2), {"order": HOURS * 0}),
    ],
)
def test_what_cannot_be_folded_is_said(validation, more):
    order = more.pop("order", HOURS)
    with pytest.raises(DataError, match="fold"):
        split_folds(400, order, validation, seed=0, **more)


def test_a_holdout_by_group_keeps_groups_whole():
    rows = pl.DataFrame({"customer": [f"c{i % 40}" for i in range(400)], "shop": ["a"] * 400})
    train, last = split_rows(rows, time=None, holdout=holdout(0.25, by="customer"), seed=1)
    assert not set(rows["customer"].gather(train)) & set(rows["customer"].gather(last))
    assert 100 <= len(last) <= 120
    with pytest.raises(DataError, match="the split leaves 0 rows"):
        split_rows(rows, time=None, holdout=holdout(0.25, by="shop"), seed=1)
    with pytest.raises(DataError, match="no column 'buyer'"):
        split_rows(rows, time=None, holdout=holdout(0.25, by="buyer"), seed=1)
