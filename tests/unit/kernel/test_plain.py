"""Feature functions as plain Python: the very same values as Polars gives, or Polars itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulle.core.clock import EPOCH
from mulle.core.records.bundle import FeatureSpec
from mulle.kernel.dtypes import INSTANT
from mulle.kernel.encode import encode, encode_columns, feature_specs, plain_columns, unseen
from mulle.kernel.plain import columns_of, read_plain
from mulle.kernel.transform import run_transform

SCHEMA = {"x": pl.Float64(), "y": pl.Float64(), "n": pl.Int64(), "flag": pl.Boolean(), "word": pl.String(), "at": INSTANT}

Transform = Callable[[pl.LazyFrame], pl.LazyFrame]


def sample(rows: int = 12) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "x": [None if i == 4 else i / 8 for i in range(rows)],
            "y": [3.0 - i for i in range(rows)],
            "n": [None if i == 2 else i * 7 for i in range(rows)],
            "flag": [None if i == 5 else i % 3 == 0 for i in range(rows)],
            "word": [None if i == 7 else f"w{i % 4}" for i in range(rows)],
            "at": [datetime(2024, 1, 1, tzinfo=UTC) + i * timedelta(hours=31) for i in range(rows)],
        },
        schema=SCHEMA,
    )


def same(transform: Transform, frame: pl.DataFrame) -> None:
    plain = read_plain(transform, sample())
    assert plain is not None, "the function is known"
    expected, found = run_transform(transform, frame), plain(columns_of(frame), frame.height)
    assert found is not None
    assert list(found) == expected.columns
    for name, values in found.items():
        assert list(map(repr, values)) == list(map(repr, expected[name].to_list())), name


moments = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1)).map(lambda t: t.replace(tzinfo=UTC))
tables = st.lists(
    st.tuples(
        st.none() | st.floats(allow_nan=False, allow_infinity=False),
        st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 1.0]),
        st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3),
        st.none() | st.booleans(),
        st.none() | st.text(st.characters(codec="utf-8"), max_size=4) | st.sampled_from(["w0", "w1"]),
        st.none() | moments,
    ),
    min_size=1,
    max_size=20,
).map(lambda rows: pl.DataFrame(rows, schema=SCHEMA, orient="row"))

numbers = st.recursive(
    st.sampled_from([pl.col("x"), pl.col("y")]),
    lambda inner: (
        st.tuples(inner, inner).map(lambda p: p[0] + p[1])
        | st.tuples(inner, inner).map(lambda p: p[0] - p[1] * 0.5)
        | st.tuples(inner, inner).map(lambda p: pl.when(p[0] > p[1]).then(p[0].abs()).otherwise(-p[1]))
        | inner.map(lambda e: e.fill_null(2.5))
        | st.tuples(inner, inner).map(lambda p: pl.coalesce(p[0], p[1]))
    ),
    max_leaves=6,
)
truths = st.recursive(
    st.sampled_from([pl.col("flag"), pl.col("word") == "w1", pl.col("n") >= 3, pl.col("x").is_null(), ~pl.col("word").is_null()])
    | st.tuples(numbers, numbers).map(lambda p: p[0] <= p[1])
    | st.tuples(numbers, numbers).map(lambda p: p[0] == p[1]),
    lambda inner: (
        st.tuples(inner, inner).map(lambda p: p[0] & p[1])
        | st.tuples(inner, inner).map(lambda p: p[0] | p[1])
        | inner.map(lambda e: ~e)
    ),
    max_leaves=4,
)


@settings(deadline=None, max_examples=60)
@given(number=numbers, truth=truths, frame=tables)
def test_whatever_is_read_gives_what_polars_gives(number: pl.Expr, truth: pl.Expr, frame: pl.DataFrame) -> None:
    same(
        lambda rows: rows.with_columns(number.alias("made")).select("made", "word", truth=truth, more=pl.col("made") * 2.0),
        frame,
    )


@settings(deadline=None, max_examples=60)
@given(frame=tables)
def test_quotients_are_those_of_many_rows_to_the_last_bit_but_one(frame: pl.DataFrame) -> None:
    def shares(rows: pl.LazyFrame) -> pl.LazyFrame:
        x, y = pl.col("x"), pl.col("y")
        return rows.select(a=x / y, b=x / 3.0, c=7.0 / x, d=pl.col("n") / pl.col("n"), e=pl.col("at").dt.hour() / 24, f=y / 0)

    plain = read_plain(shares, sample())
    assert plain is not None
    found = plain(columns_of(frame), frame.height)
    assert found is not None
    # Polars multiplies by the reciprocal of whatever it takes for a constant, which depends on the frame's other rows.
    for name, values in run_transform(shares, frame).to_dict(as_series=False).items():
        for value, expected in zip(found[name], values, strict=True):
            assert repr(value) == repr(expected) or value == pytest.approx(expected, rel=1e-15, abs=5e-324), name


@settings(deadline=None, max_examples=60)
@given(frame=tables)
def test_parts_of_time_whole_numbers_and_order_of_columns(frame: pl.DataFrame) -> None:
    at, n = pl.col("at").dt, pl.col("n")
    same(
        lambda rows: rows.with_columns(n=n * 3 - 1, long=pl.col("word").str.len_chars())
        .select(
            "word", "long", "n", "x", year=at.year(), month=at.month(), day=at.day(), yearday=at.ordinal_day(),
            weekday=at.weekday(), hour=at.hour(), minute=at.minute(), second=at.second(),
            mixed=n + pl.col("x"),
        )
        .rename({"x": "renamed"})
        .drop("long"),
        frame,
    )  # fmt: skip


KNOWS_TOO_MUCH: dict[str, Transform] = {
    "Python of its own": lambda rows: rows.select(pl.col("x").map_elements(abs, return_dtype=pl.Float64)),
    "single precision": lambda rows: rows.select(pl.col("x").cast(pl.Float32)),
    "powers": lambda rows: rows.select(pl.col("x") ** 2),
    "looks at the values": lambda rows: rows.collect().lazy(),
    "looks at the values and leaves them": lambda rows: rows if rows.collect().height else rows.select("x"),
    "a column from elsewhere": lambda rows: rows.with_columns(z=pl.Series(range(1))),
    "a constant": lambda rows: rows.select("x", z=pl.lit(1)),
    "a moment": lambda rows: rows.select(z=pl.col("at") == datetime(2024, 1, 1, tzinfo=UTC)),
    "a filter": lambda rows: rows.filter(pl.col("x") > 100),
    "a sum": lambda rows: rows.select(pl.col("x").sum().over("word")),
    "numbers rounded": lambda rows: rows.select(pl.col("x").round(1)),
}


@pytest.mark.parametrize("transform", KNOWS_TOO_MUCH.values(), ids=KNOWS_TOO_MUCH.keys())
def test_what_is_not_known_is_left_to_polars(transform: Transform) -> None:
    assert read_plain(transform, sample()) is None


def test_a_function_that_differs_from_its_plan_is_left_to_polars() -> None:
    calls = []

    def grows(rows: pl.LazyFrame) -> pl.LazyFrame:
        calls.append(1)
        return rows.select(pl.col("x") + float(len(calls)))

    assert read_plain(grows, sample()) is None


def test_a_time_outside_of_the_calendar_is_asked_of_polars() -> None:
    plain = read_plain(lambda rows: rows.select(pl.col("at").dt.year()), sample())
    assert plain is not None
    assert plain({"at": [0, 10**18]}, 2) is None
    assert plain({"at": [0, None]}, 2) == {"at": [1970, None]}


def test_a_schema_of_other_types_is_left_to_polars() -> None:
    assert read_plain(lambda rows: rows.select("d"), pl.DataFrame({"d": [EPOCH.date()]})) is None


@settings(deadline=None, max_examples=80)
@given(frame=tables)
def test_columns_are_encoded_as_frames_are(frame: pl.DataFrame) -> None:
    frame = frame.drop("at").with_columns(y=pl.col("y") * 1e300)
    words = FeatureSpec(name="word", kind="category", categories=("", "w0", "w1"))
    specs = (*feature_specs(sample().drop("at", "word")), words)
    columns = plain_columns(frame, specs)
    assert columns is not None
    matrix, unknown = encode_columns(columns, specs, frame.height)
    # Enough rows for the other way of encoding, which knows nothing of plain columns.
    many = pl.concat([frame] * (600 // frame.height + 1))
    expected = encode(many, specs)[: frame.height]
    assert matrix.dtype == np.float32
    assert matrix.flags.c_contiguous
    np.testing.assert_array_equal(matrix, expected)
    assert unknown == unseen(frame, specs, expected)


def test_numbers_at_the_edge_of_single_precision_are_encoded_alike() -> None:
    edge = 2.0**128 - 2.0**103
    values = [edge, np.nextafter(edge, 0.0), -edge, -np.nextafter(edge, 0.0), 1e308, 2.0**128 - 2.0**104]
    specs = (FeatureSpec(name="x", kind="number"),)
    matrix, _ = encode_columns({"x": values}, specs, len(values))
    with np.errstate(over="ignore"):
        known = np.array(values, dtype=np.float32)
    known[np.isinf(known)] = np.nan
    np.testing.assert_array_equal(matrix.ravel(), known)
    assert np.isnan(matrix.ravel()).tolist() == [True, False, True, False, True, False]
