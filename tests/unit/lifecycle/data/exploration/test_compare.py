"""Two versions side by side: the same bins for both, whatever their types and columns."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulle.core.errors import UsageError
from mulle.lifecycle.data.exploration import compare as module
from mulle.lifecycle.data.exploration.compare import compare

AT = datetime(2013, 3, 1, tzinfo=UTC)


def test_both_versions_stand_side_by_side() -> None:
    n = 400
    old = pl.DataFrame(
        {"id": range(n), "at": [AT + timedelta(hours=h) for h in range(n)], "x": [float(i % 97) for i in range(n)]}
    )
    new = old.with_columns(x=pl.col("x") * 2, y=pl.lit("new")).tail(n - 100)

    found = compare(old, new.lazy(), names=("t@1", "t@2"), key=["id"], target="y", time="at", facts=({"a": "1"}, {"a": "2"}))

    assert (found.before.name, found.after.name, found.after.facts) == ("t@1", "t@2", {"a": "2"})
    assert (found.before.target, found.after.target) == (None, "y")
    assert (found.difference.removed, found.difference.columns_added) == (100, {"y": "String"})
    by = {o.column: o for o in found.overlays}
    assert set(by) == {"id", "at", "x"}
    assert (by["x"].kind, by["at"].kind) == ("number", "time")
    assert all(sum(side) == pytest.approx(1) for o in found.overlays for side in (o.before, o.after))
    assert by["at"].before[0] > 0 == by["at"].after[0]
    assert found.overlays[0].column == found.difference.columns[0].column


def test_few_values_are_shown_one_by_one_in_their_order() -> None:
    old = pl.DataFrame({"n": [10, 9, -1], "c": ["b", "b", "a"], "at": [AT, AT, None]})
    new = pl.DataFrame({"n": [10.0, 9.5, math.nan], "c": ["z", "b", None], "at": [AT, AT + timedelta(days=1), None]})

    by = {o.column: o for o in compare(old, new, names=("t@1", "t@2")).overlays}

    assert by["n"].x == ("-1", "9", "9.5", "10")
    assert by["n"].before == pytest.approx((1 / 3, 1 / 3, 0, 1 / 3))
    assert by["n"].after == pytest.approx((0, 0, 0.5, 0.5))
    assert by["c"].x[0] == "b"
    assert by["at"].x == ("2013-03-01 00:00:00", "2013-03-02 00:00:00")


def test_a_column_of_another_kind_is_compared_as_values() -> None:
    found = compare(pl.DataFrame({"x": [1, 2]}), pl.DataFrame({"x": ["1", "y"]}), names=("t@1", "t@2"))

    assert (found.overlays[0].kind, found.overlays[0].x) == ("category", ("1", "2", "y"))


def test_a_target_that_neither_version_has_is_named() -> None:
    with pytest.raises(UsageError, match="neither t@1 nor t@2 has a column 'y'"):
        compare(pl.DataFrame({"x": [1]}), pl.DataFrame({"x": [1]}), names=("t@1", "t@2"), target="y")


wide = st.floats(allow_nan=True, allow_infinity=True)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.one_of(st.none(), wide), max_size=60), st.lists(st.one_of(st.none(), wide), max_size=60))
def test_every_known_value_is_in_some_bin(before: list[float | None], after: list[float | None]) -> None:
    x, y = (pl.Series("x", values, dtype=pl.Float64).fill_nan(None) for values in (before, after))

    found = module._overlay(x, y)

    for side, values in ((found.before, x), (found.after, y)):
        assert sum(side) == pytest.approx(1 if len(values.drop_nulls()) else 0)
        assert len(side) == len(found.x)
