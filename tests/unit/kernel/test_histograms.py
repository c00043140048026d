"""Histograms add up exactly, see what changed, and stay quiet when nothing did."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.calls import calls

from mulle.core.errors import DataError
from mulle.core.records.bundle import FeatureSpec
from mulle.kernel.histograms import (
    build_reference,
    count,
    count_values,
    jensen_shannon,
    merge,
    null_rate,
    psi,
    sampling_noise,
)

SPECS = [FeatureSpec(name="x", kind="number"), FeatureSpec(name="c", kind="category")]
NUMBERS = st.one_of(st.none(), st.floats(width=32), st.integers(-3, 3).map(float))
ROWS = st.lists(st.tuples(NUMBERS, st.one_of(st.none(), st.sampled_from("abcde"))), max_size=40)


def frame(rows: list[tuple[float | None, str | None]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"x": pl.Float64, "c": pl.String}, orient="row")


@given(ROWS, ROWS, ROWS)
def test_windows_add_up_to_the_count_of_all_their_rows(base, a, b):
    reference = build_reference(frame(base), SPECS, frame(base)["x"])
    assert merge(count(frame(a), reference), count(frame(b), reference)) == count(frame(a + b), reference)


@given(ROWS, ROWS)
def test_psi_is_never_negative_and_nothing_for_equal_rows(base, other):
    reference = build_reference(frame(base), SPECS, frame(base)["c"])
    counted = count(frame(other), reference)
    for name, expected in reference["features"].items():
        assert psi(expected, counted["features"][name]) >= 0
        assert 0 <= jensen_shannon(expected, counted["features"][name]) <= 1
        assert psi(expected, expected) == 0
        assert jensen_shannon(expected, expected) == 0


@given(ROWS)
def test_every_row_is_in_exactly_one_cell_and_the_record_is_json(base):
    reference = build_reference(frame(base), SPECS, frame(base)["c"])
    assert json.loads(json.dumps(reference, allow_nan=False)) == reference
    x, c = reference["features"]["x"], reference["features"]["c"]
    assert sum(x["counts"]) + x["nulls"] == x["rows"] == len(base)
    assert sum(c["counts"].values()) + c["other"] + c["nulls"] == c["rows"] == len(base)


def test_a_shift_is_seen_in_either_direction_and_beyond_the_range():
    rng = np.random.default_rng(1)
    base = rng.normal(size=5000)
    reference = build_reference(pl.DataFrame({"x": base}), SPECS[:1], pl.Series(base))
    entry = reference["features"]["x"]

    def drift(values: np.ndarray) -> float:
        return psi(entry, count_values(pl.Series(values), entry))

    assert drift(rng.normal(size=5000)) < 0.02
    assert drift(rng.normal(size=2000) + 1) > 0.5
    assert drift(rng.normal(size=2000) - 1) > 0.5
    assert drift(np.full(500, 99.0)) > 5
    assert drift(np.full(500, -99.0)) > 5


@pytest.mark.parametrize("now", [6.0, 4.0])
def test_a_constant_that_moves_is_seen_up_and_down(now):
    entry = build_reference(pl.DataFrame({"x": [5.0] * 300}), SPECS[:1], pl.Series([1.0]))["features"]["x"]
    assert psi(entry, count_values(pl.Series([5.0] * 300), entry)) == 0
    assert psi(entry, count_values(pl.Series([now] * 300), entry)) > 5


def test_a_mass_at_one_value_has_a_bin_of_its_own():
    base = [0.0] * 700 + list(np.linspace(0.1, 1, 300))
    entry = build_reference(pl.DataFrame({"x": base}), SPECS[:1], pl.Series([1.0]))["features"]["x"]
    assert max(entry["counts"]) == 700
    assert psi(entry, count_values(pl.Series([-1e-3] * 700 + base[700:]), entry)) > 1


def test_a_new_category_counts_as_other_and_as_drift():
    entry = build_reference(pl.DataFrame({"c": ["a", "b"] * 100}), SPECS[1:], pl.Series(["y"]))["features"]["c"]
    counted = count_values(pl.Series(["a", "z"] * 100), entry)
    assert (counted["other"], counted["counts"]) == (100, {"a": 100, "b": 0})
    assert psi(entry, counted) > 2


def test_numbers_agree_whether_they_come_as_doubles_singles_or_text():
    entry = build_reference(pl.DataFrame({"x": [0.1, 0.2, 0.3] * 30}), SPECS[:1], pl.Series([1.0]))["features"]["x"]
    doubles = pl.Series([0.1, 0.2, 0.3] * 30)
    for other in (doubles, doubles.cast(pl.Float32), doubles.cast(pl.String)):
        assert count_values(other, entry) == entry


def test_nulls_and_nan_are_one_rate():
    entry = build_reference(pl.DataFrame({"x": [1.0, 2.0]}), SPECS[:1], pl.Series([1.0]))["features"]["x"]
    assert null_rate(count_values(pl.Series([1.0, None, float("nan"), 2.0]), entry)) == 0.5
    assert null_rate(count_values(pl.Series([], dtype=pl.Float64), entry)) == 0


def test_sampling_noise_is_what_psi_gives_without_drift():
    rng = np.random.default_rng(2)
    entry = build_reference(pl.DataFrame({"x": rng.normal(size=20_000)}), SPECS[:1], pl.Series([1.0]))["features"]["x"]
    found = [count_values(pl.Series(rng.normal(size=300)), entry) for _ in range(200)]
    measured = np.mean([psi(entry, f) for f in found])
    promised = np.mean([sampling_noise(entry, f) for f in found])
    assert measured == pytest.approx(promised, rel=0.15)


def test_histograms_of_different_bins_do_not_mix():
    one = build_reference(pl.DataFrame({"x": [1.0, 2.0]}), SPECS[:1], pl.Series([1.0]))
    two = build_reference(pl.DataFrame({"x": [1.0, 3.0]}), SPECS[:1], pl.Series([1.0]))
    with pytest.raises(DataError):
        merge(one, two)
    with pytest.raises(DataError):
        psi(one["features"]["x"], two["features"]["x"])


def test_a_column_that_is_missing_counts_no_rows():
    reference = build_reference(frame([(1.0, "a")]), SPECS, pl.Series([1.0]))
    assert count(pl.DataFrame({"c": ["a"]}), reference)["features"]["x"]["rows"] == 0


def test_many_rows_of_fifty_features_are_counted_by_columns_and_none_by_itself():
    rng = np.random.default_rng(3)
    numbers = {f"n{i}": rng.normal(size=20_000) for i in range(40)}
    texts = {f"c{i}": rng.integers(0, 50, 20_000).astype(str) for i in range(10)}
    features = pl.DataFrame({**numbers, **texts})
    specs = [FeatureSpec(name=n, kind="number" if n[0] == "n" else "category") for n in features.columns]
    reference = build_reference(features, specs, features["n0"])
    few, many = calls(lambda: count(features.head(1_000), reference)), calls(lambda: count(features, reference))
    assert many < 1.1 * few
