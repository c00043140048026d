"""The mean answer follows the feature that it depends on, for numbers, times and categories."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from mulle.lifecycle.evaluation.dependence import STEPS, partial_dependence

N = 400
ROWS = pl.DataFrame(
    {
        "x": np.linspace(0, 10, N),
        "count": [i % 3 for i in range(N)],
        "at": [datetime(2013, 1, 1, tzinfo=UTC) + timedelta(hours=i) for i in range(N)],
        "place": ["EWR", "JFK", None, "LGA"] * (N // 4 - 1) + ["Ada's own"] * 4,
        "sure": [True, False] * (N // 2),
        "said": [["a", "b"]] * N,
    }
)


def answer(rows: pl.DataFrame) -> np.ndarray:
    hours = (rows["at"] - ROWS["at"].min()).dt.total_hours().to_numpy()
    places = 5.0 * (rows["place"].fill_null("") == "JFK").to_numpy()
    return (2 * rows["x"].to_numpy() + hours + places + 3 * rows["sure"].to_numpy())[:, None]


def slope(column: str) -> np.ndarray:
    found = partial_dependence(ROWS, column, answer, ["y"])
    assert found is not None
    return np.asarray(found.answers["y"])


def test_numbers_are_tried_from_the_twentieth_to_the_last_but_twentieth() -> None:
    found = partial_dependence(ROWS, "x", answer, ["y"])
    assert found is not None
    at = [float(a) for a in found.at]
    assert (found.kind, len(at)) == ("number", STEPS)
    assert (at[0], at[-1]) == pytest.approx((0.5, 9.5), abs=0.1)
    assert np.diff(found.answers["y"]) == pytest.approx(2 * np.diff(at), rel=1e-3)


def test_times_follow_their_clock_and_what_plays_no_part_is_flat() -> None:
    assert np.all(np.diff(slope("at")) > 0)
    assert np.ptp(slope("count")) == pytest.approx(0)
    assert partial_dependence(ROWS, "count", answer, ["y"]).at == ("0", "1", "2")  # type: ignore[union-attr]


def test_of_categories_what_single_rows_have_is_not_told() -> None:
    found = partial_dependence(ROWS, "place", answer, ["y"])
    assert found is not None
    assert found.at == ("EWR", "JFK", "LGA")
    assert np.asarray(found.answers["y"]) - found.answers["y"][0] == pytest.approx([0, 5, 0])
    yes = partial_dependence(ROWS, "sure", answer, ["y"])
    assert yes is not None
    assert yes.answers["y"][1] - yes.answers["y"][0] == pytest.approx(3)


def test_lists_and_constants_have_none() -> None:
    assert partial_dependence(ROWS, "said", answer, ["y"]) is None
    assert partial_dependence(ROWS.with_columns(x=pl.lit(1.0)), "x", answer, ["y"]) is None
