"""How far apart histograms are, and whether that is chance."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulle.core.errors import DataError
from mulle.core.records.bundle import FeatureSpec
from mulle.kernel.change import beyond_chance, chance, chi_square_tail, excess_chance, wasserstein, wasserstein_noise
from mulle.kernel.histograms import add_parts, build_reference, count_values, merge

SPECS = [FeatureSpec(name="x", kind="number"), FeatureSpec(name="c", kind="category")]


def entries(values: np.ndarray, words: np.ndarray) -> dict[str, dict]:
    frame = pl.DataFrame({"x": values, "c": pl.Series(words.tolist(), dtype=pl.String)})
    return build_reference(frame, SPECS, frame["x"])["features"]


def drawn(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    dice = np.random.default_rng(seed)
    return dice.normal(size=rows), dice.choice(list("abcdefgh"), rows, p=[0.4, 0.2, 0.2, 0.1, 0.05, 0.03, 0.01, 0.01])


@pytest.mark.parametrize("kind", ["x", "c"])
def test_what_is_called_rare_is_rare_where_nothing_changed(kind: str) -> None:
    reference = entries(*drawn(0, 10_000))[kind]
    found = []
    for seed in range(1, 2_001):
        values, words = drawn(seed, 300)
        found.append(chance(reference, count_values(pl.Series(values if kind == "x" else words), reference)))
    below = np.asarray(found)
    assert (below < 0.05).mean() == pytest.approx(0.05, abs=0.02)
    assert (below < 0.001).sum() <= 8


def test_a_change_of_place_width_or_share_is_seen_though_the_cells_alone_hardly_show_it() -> None:
    values, words = drawn(0, 10_000)
    reference = entries(values, words)
    for values in (drawn(1, 1_000)[0] + 0.25, drawn(1, 1_000)[0] * 1.35):
        assert chance(reference["x"], count_values(pl.Series(values), reference["x"])) < 1e-5
    other = np.where(np.random.default_rng(2).random(1_000) < 0.12, "h", drawn(1, 1_000)[1])
    assert chance(reference["c"], count_values(pl.Series(other.tolist()), reference["c"])) < 1e-12


@settings(deadline=None, max_examples=30)
@given(shift=st.floats(-2, 2), scale=st.floats(0.5, 2), origin=st.floats(-1e3, 1e3), unit=st.floats(0.01, 100))
def test_wasserstein_is_the_distance_of_samples_in_spreads_whatever_the_unit(
    shift: float, scale: float, origin: float, unit: float
) -> None:
    values, words = drawn(0, 5_000)
    now = values * scale + shift
    reference = entries(values * unit + origin, words)["x"]
    other = count_values(pl.Series(now * unit + origin), reference)
    # Of equally many values it is the mean distance of the sorted ones (Villani, Topics in Optimal Transportation, 2003).
    exact = float(np.abs(np.sort(now) - np.sort(values)).mean())
    assert wasserstein(reference, other) == pytest.approx(exact, rel=0.35, abs=0.06)


def test_wasserstein_of_the_same_rows_is_nothing_and_noise_is_what_samples_differ_by() -> None:
    values, words = drawn(0, 5_000)
    reference = entries(values, words)["x"]
    assert wasserstein(reference, reference) == 0
    found = [wasserstein(reference, count_values(pl.Series(drawn(s, 400)[0]), reference)) for s in range(1, 200)]
    noise = wasserstein_noise(reference, count_values(pl.Series(drawn(1, 400)[0]), reference))
    assert np.mean(found) == pytest.approx(noise, rel=0.25)


def test_a_constant_column_that_moves_is_far_and_one_without_values_is_nowhere() -> None:
    reference = entries(np.full(500, 3.0), np.full(500, "a"))
    far = count_values(pl.Series([9.0] * 300), reference["x"])
    assert wasserstein(reference["x"], far) > 1
    assert chance(reference["x"], far) < 1e-12
    blank = count_values(pl.Series([None] * 300, dtype=pl.Float64), reference["x"])
    assert (wasserstein(reference["x"], blank), wasserstein_noise(reference["x"], blank), chance(reference["x"], blank)) == (
        0,
        0,
        1,
    )


def test_other_bins_are_refused() -> None:
    one, other = entries(*drawn(0, 500))["x"], entries(*drawn(1, 500))["x"]
    with pytest.raises(DataError):
        wasserstein(one, other)


@settings(deadline=None)
@given(value=st.floats(0, 200), freedom=st.integers(1, 60))
def test_the_tail_of_chi_square_is_the_textbooks(value: float, freedom: int) -> None:
    from scipy.stats import chi2

    assert chi_square_tail(value, freedom) == pytest.approx(float(chi2.sf(value, freedom)), rel=1e-6, abs=1e-300)


@settings(deadline=None)
@given(hits=st.integers(0, 200), known=st.integers(0, 1_000))
def test_a_share_above_the_references_is_the_rarer_the_further_it_is(hits: int, known: int) -> None:
    now, more = (excess_chance(h, 200, known, 1_000) for h in (hits, min(200, hits + 5)))
    assert 0 <= more <= now <= 1
    assert (now < 0.5) == (hits / 200 > known / 1_000)


def test_values_beyond_the_references_are_as_rare_as_it_is_said() -> None:
    dice = np.random.default_rng(5)
    known, now = dice.random((4_000, 900)), dice.random((4_000, 100))
    beyond = ((now > known.max(axis=1, keepdims=True)) | (now < known.min(axis=1, keepdims=True))).sum(axis=1)
    for hits in (1, 2, 3):
        assert (beyond >= hits).mean() == pytest.approx(beyond_chance(hits, 100, 900), rel=0.25)


def test_parts_of_a_reference_add_up_to_it() -> None:
    values, words = drawn(0, 700)
    frame = pl.DataFrame({"x": values, "c": words.tolist()})
    whole = build_reference(frame, SPECS, frame["x"])
    parted = add_parts(whole, frame, frame["x"], "same_weekday", pl.Series([n % 7 + 1 for n in range(700)]))
    parts = [parted["parts"][str(day)] for day in range(1, 8)]
    total = parts[0]
    for part in parts[1:]:
        total = merge(total, part)
    assert total == {name: whole[name] for name in total}
