"""A key is one text, whichever way it is written."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from mulle.kernel.keys import key_expr, key_text

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
columns = {
    "s": (text, pl.String()),
    "i": (st.integers(-(2**63), 2**63 - 1), pl.Int64()),
    "b": (st.booleans(), pl.Boolean()),
    "f": (st.floats(), pl.Float64()),
    "t": (st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)), pl.Datetime("us", "UTC")),
}
rows = st.lists(st.tuples(*(st.one_of(st.none(), values) for values, _ in columns.values())), min_size=1, max_size=8)


def made(values: list[tuple[object, ...]]) -> pl.DataFrame:
    return pl.DataFrame(
        [pl.Series(n, [v[i] for v in values], dtype=columns[n][1]) for i, n in enumerate(columns)],
    )


@given(rows, st.lists(st.sampled_from(sorted(columns)), min_size=1, max_size=4, unique=True))
def test_columns_and_values_write_the_same_text(values: list[tuple[object, ...]], names: list[str]) -> None:
    order = list(columns)
    expected = [key_text([v[order.index(n)] for n in names]) for v in values]
    assert made(values).select(k=key_expr(names))["k"].to_list() == expected


@given(st.lists(text, min_size=2, max_size=3), st.lists(text, min_size=2, max_size=3))
def test_different_keys_have_different_texts(a: list[str], b: list[str]) -> None:
    assert len(a) != len(b) or (key_text(a) == key_text(b)) == (a == b)


def test_a_category_and_a_narrow_number_read_as_what_they_stand_for() -> None:
    frame = pl.DataFrame({"c": pl.Series(["a"], dtype=pl.Categorical), "n": pl.Series([7], dtype=pl.UInt8)})
    assert frame.select(k=key_expr(["c", "n"]))["k"].to_list() == [key_text(["a", 7.0])] == ["a|7"]


def test_a_key_works_in_a_lazy_frame_and_on_no_rows() -> None:
    empty = pl.LazyFrame(schema={"s": pl.String, "i": pl.Int64})
    assert empty.select(k=key_expr(["s", "i"])).collect()["k"].dtype == pl.String
