"""A fold knows nothing but its own training rows, here and in a worker's files."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from mulle.core.records.bundle import FeatureSpec
from mulle.kernel.encode import encode, feature_specs
from mulle.lifecycle.training.folds import open_rows, prepare_rows, save_rows

DAY = 86_400_000_000


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_a_fold_is_encoded_as_if_its_training_rows_were_all_there_is(seed):
    random = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            "c": [["a", "b", "c", "d", "rare", None][i] for i in random.choice(6, 60, p=[0.3, 0.3, 0.2, 0.1, 0.02, 0.08])],
            "x": random.normal(size=60),
            "at": [datetime(2013, 1 + i % 12, 1) for i in range(60)],
        }
    )
    train, valid = np.split(random.permutation(60), [40])
    specs = feature_specs(frame)
    rows = prepare_rows(
        encode(frame, specs), np.arange(60.0), None, [(train, valid)], task="regression", specs=specs, windows=["all"], seed=0,
        most=1000,
    )  # fmt: skip
    (fold,) = rows.folds["all"]
    own = tuple(replace(s, categories=t.categories) for s, t in zip(specs, feature_specs(frame[train]), strict=True))
    assert fold.specs == own
    np.testing.assert_array_equal(fold.train, encode(frame[train], own))
    np.testing.assert_array_equal(fold.valid, encode(frame[valid], own))


def prepared(windows=("all", "10d"), most=1000):
    matrix = np.arange(200, dtype=np.float32).reshape(100, 2)
    target = np.array(["no", "yes"], dtype=object)[np.arange(100) % 2]
    split = (np.arange(80), np.arange(80, 100))
    return prepare_rows(
        matrix, target, np.arange(100) * DAY, [split], task="binary", specs=[], windows=windows, seed=0, most=most
    )


def test_a_window_keeps_the_latest_training_rows_and_scores_on_the_same():
    rows = prepared()
    every, late = rows.folds["all"][0], rows.folds["10d"][0]
    assert len(every.train) == 80
    np.testing.assert_array_equal(late.train, every.train[-10:])
    np.testing.assert_array_equal(late.valid, every.valid)
    assert rows.size == 80
    assert rows.classes == ("no", "yes")


def test_a_sample_is_drawn_after_the_window():
    rows = prepared(most=10)
    assert [len(rows.folds[w][0].train) for w in ("all", "10d")] == [8, 8]
    assert len(rows.folds["all"][0].valid) == 2


def test_files_give_the_same_rows_mapped_not_copied(tmp_path):
    rows = prepared()
    save_rows(rows, tmp_path)
    again = open_rows(tmp_path)
    assert (again.task, again.seed, again.classes, again.folds.keys()) == (rows.task, 0, ("no", "yes"), rows.folds.keys())
    for label, folds in rows.folds.items():
        for one, other in zip(folds, again.folds[label], strict=True):
            for part in ("train", "train_target", "valid", "valid_target"):
                np.testing.assert_array_equal(getattr(one, part), getattr(other, part))
            assert isinstance(other.train.base, np.memmap)


def test_each_fold_chooses_its_features_from_its_training_rows_alone():
    matrix = np.zeros((40, 3), dtype=np.float32)
    matrix[:20, 0] = matrix[20:, 1] = np.arange(20)
    specs = [FeatureSpec(name=n, kind="number") for n in "abc"]
    splits = [(np.arange(20), np.arange(20, 40)), (np.arange(20, 40), np.arange(20))]

    def varied(train, target, specs):
        assert len(train) == len(target) == 20
        return [s.name for i, s in enumerate(specs) if train[:, i].std() > 0]

    rows = prepare_rows(
        matrix, np.arange(40.0), None, splits, task="regression", specs=specs, windows=["all"], seed=0, most=100, narrow=varied
    )
    first, second = rows.folds["all"]
    assert [[s.name for s in f.specs] for f in (first, second)] == [["a"], ["b"]]
    assert first.train[:, 0].tolist() == list(range(20))
    assert first.valid[:, 0].tolist() == [0] * 20
