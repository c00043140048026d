"""Two versions compared: exact counts against a slow reference, samples, schema, distributions."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulle.core.records.base import from_json, to_json
from mulle.core.records.exploration import Difference
from mulle.lifecycle.data.exploration.diff import diff

Row = tuple[object, ...]
COLUMNS = ("k", "x", "s")

numbers = st.sampled_from([None, 0.0, -0.0, 1.5, math.nan, math.inf])
rows = st.lists(st.tuples(st.sampled_from([None, 1, 2, 3, 4]), numbers, st.sampled_from([None, "", "a", "b"])), max_size=12)
keys = st.sampled_from([(), ("k",), ("k", "s"), ("x",), ("x", "k", "s"), ("gone",)])


def table(found: list[Row]) -> pl.DataFrame:
    return pl.DataFrame(found, schema={"k": pl.Int64, "x": pl.Float64, "s": pl.String}, orient="row")


def canonical(row: Row) -> Row:
    return tuple(
        "nan" if isinstance(v, float) and math.isnan(v) else 0.0 if v == 0.0 and isinstance(v, float) else v for v in row
    )


def expected(before: list[Row], after: list[Row], key: tuple[str, ...]) -> tuple[int, int, int]:
    """Added, changed, removed: equal rows are struck out one by one, what is left is paired within a key."""
    old, new = Counter(map(canonical, before)), Counter(map(canonical, after))
    old, new = old - new, new - old
    if not key or not set(key) <= set(COLUMNS):
        return new.total(), 0, old.total()
    left: dict[Row, list[int]] = defaultdict(lambda: [0, 0])
    for side, counter in enumerate((old, new)):
        for row, count in counter.items():
            left[tuple(row[COLUMNS.index(c)] for c in key)][side] += count
    pairs = [(a, b, min(a, b)) for a, b in left.values()]
    return sum(b - n for _, b, n in pairs), sum(n for _, _, n in pairs), sum(a - n for a, _, n in pairs)


@settings(max_examples=120, deadline=None)
@given(before=rows, after=rows, key=keys)
def test_counts_are_those_of_a_slow_reference(before: list[Row], after: list[Row], key: tuple[str, ...]) -> None:
    found = diff(table(before).lazy(), table(after).lazy(), key=key)

    assert (found.added, found.changed, found.removed) == expected(before, after, key)
    assert (found.rows_before, found.rows_after) == (len(before), len(after))
    assert found.empty == (found.added == found.changed == found.removed == 0)
    assert [len(s) for s in (found.added_rows, found.changed_rows, found.removed_rows)] == [
        min(20, n) for n in (found.added, found.changed, found.removed)
    ]


@settings(max_examples=40, deadline=None)
@given(before=rows, after=rows, key=keys)
def test_rows_with_one_hash_are_still_told_apart(before: list[Row], after: list[Row], key: tuple[str, ...]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pl.Expr, "hash", lambda self: self.is_null().cast(pl.UInt64))
        found = diff(table(before).lazy(), table(after).lazy(), key=key)

    assert (found.added, found.changed, found.removed) == expected(before, after, key)


@settings(max_examples=50, deadline=None)
@given(before=rows, after=rows, key=keys, shuffled=st.data())
def test_order_of_rows_and_columns_does_not_matter(
    before: list[Row], after: list[Row], key: tuple[str, ...], shuffled: st.DataObject
) -> None:
    once = diff(table(before).lazy(), table(after).lazy(), key=key)
    again = [table(shuffled.draw(st.permutations(found))) for found in (before, after)]
    columns = shuffled.draw(st.permutations(COLUMNS))
    twice = diff(again[0].select(columns).lazy(), again[1].lazy(), key=key)

    assert to_json(twice) == to_json(once)


@settings(max_examples=50, deadline=None)
@given(after=st.dictionaries(st.integers(0, 6), st.tuples(numbers, st.sampled_from([None, "a", "b"]))), data=st.data())
def test_changed_values_are_counted_by_column(after: dict[int, Row], data: st.DataObject) -> None:
    before = data.draw(st.dictionaries(st.integers(0, 6), st.tuples(numbers, st.sampled_from([None, "a", "b"]))))
    old, new = (table([(k, *v) for k, v in side.items()]) for side in (before, after))
    found = diff(old.lazy(), new.lazy(), key=["k"])

    both = before.keys() & after.keys()
    for at, name in enumerate(("x", "s")):
        moved = [k for k in both if canonical((before[k][at],)) != canonical((after[k][at],))]
        assert next(c for c in found.columns if c.column == name).changed == len(moved)
    assert [c.key["k"] for c in found.changed_rows] == sorted(k for k in both if canonical(before[k]) != canonical(after[k]))


def test_a_changed_row_tells_which_columns_differ() -> None:
    old = pl.LazyFrame({"id": [1, 2], "x": [1.0, math.nan], "y": ["a", None], "_batch": ["p", "p"]})
    new = pl.LazyFrame({"id": [2, 1], "x": [math.nan, None], "y": [None, "b"], "_batch": ["q", "q"]})

    found = diff(old, new, key=["id"])

    assert [(c.key, c.before, c.after) for c in found.changed_rows] == [({"id": 1}, {"x": 1.0, "y": "a"}, {"x": None, "y": "b"})]
    assert {c.column: c.changed for c in found.columns} == {"id": 0, "x": 1, "y": 1}


def test_bookkeeping_is_not_a_difference() -> None:
    old = pl.LazyFrame({"id": [1], "_ingested_at": [1], "_version": [1]})
    new = pl.LazyFrame({"id": [1], "_ingested_at": [2], "_live": [True]})

    assert diff(old, new, key=["id"]).empty


def test_columns_that_came_went_or_have_another_type() -> None:
    old = pl.LazyFrame({"id": [1, 2], "n": [1, 2], "m": [1, 2], "gone": ["a", "b"]})
    new = pl.LazyFrame({"id": [1, 2], "n": [1.0, 2.5], "m": ["1", "x"], "come": [True, False]})

    found = diff(old, new, key=["id"])

    assert found.columns_added == {"come": "Boolean"}
    assert found.columns_removed == {"gone": "String"}
    assert [(c.column, c.before, c.after) for c in found.columns_retyped] == [("n", "Int64", "Float64"), ("m", "Int64", "String")]
    assert [(c.key["id"], c.before, c.after) for c in found.changed_rows] == [(2, {"n": 2, "m": 2}, {"n": 2.5, "m": "x"})]
    assert not found.empty


def test_an_added_column_alone_changes_no_row() -> None:
    found = diff(pl.LazyFrame({"id": [1]}), pl.LazyFrame({"id": [1], "x": [2]}), key=["id"])

    assert (found.added, found.changed, found.removed, found.empty) == (0, 0, 0, False)


def test_tables_without_a_common_column_share_no_row() -> None:
    found = diff(pl.LazyFrame({"a": [1, 2]}), pl.LazyFrame({"b": [1, 2, 3]}), key=["a"])

    assert (found.added, found.changed, found.removed, found.key) == (3, 0, 2, ())
    assert found.added_rows == ({"b": 1}, {"b": 2}, {"b": 3})


def test_a_key_that_one_side_lacks_compares_rows_whole() -> None:
    found = diff(pl.LazyFrame({"x": [1, 1, 2]}), pl.LazyFrame({"x": [1, 2, 2], "id": [1, 2, 3]}), key=["id"])

    assert (found.key, found.added, found.changed, found.removed) == ((), 1, 0, 1)


def test_every_type_is_compared_and_written_as_json() -> None:
    at = datetime(2013, 3, 1, tzinfo=UTC)
    row = {
        "id": 1, "l": [1, None], "st": {"a": 1.5}, "b": b"\xff", "d": date(2013, 3, 1), "at": at, "du": timedelta(hours=1),
        "de": Decimal("1.50"), "bo": True, "naive": datetime(2013, 3, 1),
    }  # fmt: skip
    later = {**row, "l": [1, 2], "st": {"a": 2.5}, "b": b"\x00", "d": date(2013, 3, 2), "at": at + timedelta(days=1)}
    later |= {"du": timedelta(hours=2), "de": Decimal("1.51"), "bo": False, "naive": datetime(2013, 3, 2)}
    old, new = pl.DataFrame([row]), pl.DataFrame([later])
    coded = pl.Series("c", ["u"], dtype=pl.Categorical), pl.Series("c", ["v"], dtype=pl.Categorical)

    found = diff(old.with_columns(coded[0]).lazy(), new.with_columns(coded[1]).lazy(), key=["id"])

    assert set(found.changed_rows[0].after) == {*later, "c"} - {"id"}
    text = json.dumps(to_json(found), allow_nan=False)
    assert from_json(Difference, json.loads(text)) == found
    assert diff(old.lazy(), old.lazy(), key=["l", "st"]).empty


def test_the_column_that_moved_most_comes_first() -> None:
    n = 2_000
    old = pl.LazyFrame(
        {"id": range(n), "same": [i % 7 for i in range(n)], "shift": [i % 10 for i in range(n)], "hole": [1.0] * n}
    )
    new = old.with_columns(shift=pl.col("shift") + 6, hole=pl.when(pl.col("id") % 2 == 0).then(None).otherwise(1.0))

    found = diff(old, new, key=["id"])

    assert [c.column for c in found.columns][:2] == ["shift", "hole"]
    by = {c.column: c for c in found.columns}
    assert by["same"].psi == 0
    assert by["shift"].psi > 0.5 > by["shift"].noise
    assert (by["hole"].before.missing, by["hole"].after.missing) == (0, n // 2)
    assert by["shift"].after.mean == pytest.approx(by["shift"].before.mean + 6)


def test_identifiers_that_are_all_new_are_not_called_drift() -> None:
    old = pl.LazyFrame({"id": [f"a{i}" for i in range(5_000)], "code": ["x", "y"] * 2_500})
    new = pl.LazyFrame({"id": [f"b{i}" for i in range(5_000)], "code": ["x", "x", "x", "y"] * 1_250})

    found = {c.column: c for c in diff(old, new, key=["id"]).columns}

    assert found["code"].psi > 0.2
    assert found["code"].before.top == (("x", 2_500), ("y", 2_500))


def test_samples_are_bounded() -> None:
    old = pl.LazyFrame({"id": range(100), "x": [0] * 100})
    new = pl.LazyFrame({"id": range(50, 200), "x": [1] * 150})

    found = diff(old, new, key=["id"])

    assert (found.added, found.changed, found.removed) == (100, 50, 50)
    assert [r["id"] for r in found.added_rows] == list(range(100, 120))
    assert [r.key["id"] for r in found.changed_rows] == list(range(50, 70))
    assert [r["id"] for r in found.removed_rows] == list(range(20))
