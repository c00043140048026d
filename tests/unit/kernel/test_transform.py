"""What a request may carry, what a feature function may do, and how features become numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulle.core.clock import instant
from mulle.core.errors import ContractError, TransformError
from mulle.core.records.bundle import FeatureSpec
from mulle.kernel.transform import (
    cast_inputs,
    encode,
    feature_specs,
    frame_from_rows,
    prove_row_wise,
    raw_inputs,
    run_transform,
    unseen,
)

NOW = instant("2013-03-01T12:00:00Z")
SCHEMA = {
    "id": "Int32", "at": "Datetime(us, UTC)", "carrier": "String", "distance": "Float32", "late": "Boolean",
    "day": "Date", "air_time": "Float64", "tags": "List(String)", "_batch": "String",
}  # fmt: skip
INPUTS = raw_inputs(SCHEMA, hidden=["air_time"], key=["id"], time="at")
ROW: dict[str, Any] = {"id": 1, "carrier": "AA", "distance": 100, "late": False, "day": "2013-03-01"}


def framed(*rows: Any) -> pl.DataFrame:
    return frame_from_rows(rows, INPUTS, model="air-time@7", time="at", now=NOW)


def test_inputs_are_what_a_request_can_know() -> None:
    assert {f.name: (f.type, f.dtype) for f in INPUTS} == {
        "id": ("INT64", "Int64"),
        "at": ("TIME", "Datetime(us, UTC)"),
        "carrier": ("BYTES", "String"),
        "distance": ("FP64", "Float64"),
        "late": ("BOOL", "Boolean"),
        "day": ("TIME", "Datetime(us, UTC)"),
    }
    assert [f.name for f in INPUTS if not f.required] == ["at"]


def test_a_row_takes_the_contracts_types_and_a_missing_time_is_now() -> None:
    frame = framed(ROW, {**ROW, "id": 2.0, "at": "2013-03-01T12:00:00+02:00", "carrier": None, "distance": 1.5})
    assert frame.schema["at"] == pl.Datetime("us", "UTC")
    assert frame["at"].to_list() == [NOW, instant("2013-03-01T10:00:00Z")]
    assert frame["id"].to_list() == [1, 2]
    assert frame["distance"].to_list() == [100.0, 1.5]
    assert frame["carrier"].to_list() == ["AA", None]


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"distance": "far"}, "distance", "air-time@7 row 1: distance is 'far', expected Float64"),
        ({"distance": True}, "distance", "expected Float64"),
        ({"distance": math.inf}, "distance", "finite"),
        ({"distance": 10**400}, "distance", "finite"),
        ({"id": 1.5}, "id", "expected Int64"),
        ({"id": 2**63}, "id", "64 bits"),
        ({"late": 1}, "late", "expected Boolean"),
        ({"carrier": 7}, "carrier", "expected String"),
        ({"carrier": "\ud800"}, "carrier", "Unicode"),
        ({"at": "soon"}, "at", "expected a time"),
        ({"at": 1362139200}, "at", "expected a time"),
        ({"air_time": 3.0}, "air_time", "unknown"),
    ],
)
def test_a_row_that_breaks_the_contract_is_refused_by_field(change: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(ContractError, match=r".") as caught:
        framed(ROW, {**ROW, **change})
    assert caught.value.facts == {"model": "air-time@7", "row": 1, "field": field}
    assert words in caught.value.detail


def test_a_missing_field_and_a_row_that_is_no_object_are_refused() -> None:
    with pytest.raises(ContractError, match="carrier is missing"):
        framed({k: v for k, v in ROW.items() if k != "carrier"})
    with pytest.raises(ContractError, match="row 1: is a list"):
        framed(ROW, [1])


@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.timezones()))
def test_times_are_read_to_the_microsecond(moment: datetime) -> None:
    assert framed({**ROW, "at": moment})["at"][0] == moment.astimezone(UTC)


def test_training_rows_get_the_same_types_as_requests() -> None:
    stored = pl.DataFrame({"id": pl.Series([1], dtype=pl.Int32), "distance": pl.Series([math.nan], dtype=pl.Float32),
                           "at": [datetime(2013, 1, 1)], "day": [datetime(2013, 1, 1).date()], "other": [1]})  # fmt: skip
    cast = cast_inputs(stored, INPUTS)
    assert cast["distance"].to_list() == [None]
    assert cast["at"][0] == cast["day"][0] == instant("2013-01-01")
    assert dict(cast.schema) == {
        "id": pl.Int64, "distance": pl.Float64, "at": pl.Datetime("us", "UTC"), "day": pl.Datetime("us", "UTC"), "other": pl.Int64
    }  # fmt: skip


SAMPLE = pl.DataFrame({"x": [1.0, 2.0, 4.0, None, 3.0, 2.0], "s": ["a", "b", "c", "d", None, "a"]})

ROW_WISE: list[Callable[[pl.LazyFrame], pl.LazyFrame]] = [
    lambda r: r.select(y=pl.col("x") * 2, s=pl.col("s").str.to_uppercase()),
    lambda r: r.with_columns(y=pl.col("x").exp().fill_null(0)),
    lambda r: r.select(y=pl.when(pl.col("x") > 2).then(1).otherwise(None)),
]
NOT_ROW_WISE: list[Callable[[pl.LazyFrame], pl.LazyFrame]] = [
    lambda r: r.select(pl.col("x") - pl.col("x").mean()),
    lambda r: r.select(pl.col("x").rank()),
    lambda r: r.select(pl.col("x").shift(1)),
    lambda r: r.select(pl.col("x").fill_null(strategy="forward")),
    lambda r: r.select(pl.col("x").sort()),
    lambda r: r.select(pl.len().over("s")),
    lambda r: r.select(pl.col("s").is_duplicated()),
    lambda r: r.select(pl.col("s").cast(pl.Categorical).to_physical()),
    lambda r: r.sort("x"),
    lambda r: r.filter(pl.col("x").is_not_null()),
    lambda r: r.select(pl.col("x").sum()),
    lambda r: r.with_row_index("n").select(pl.col("n")),
]


@pytest.mark.parametrize("function", ROW_WISE)
def test_a_row_wise_function_is_proven(function: Callable[[pl.LazyFrame], pl.LazyFrame]) -> None:
    prove_row_wise(function, SAMPLE)
    assert run_transform(function, SAMPLE).height == SAMPLE.height


@pytest.mark.parametrize("function", NOT_ROW_WISE)
def test_a_function_that_looks_at_other_rows_is_refused(function: Callable[[pl.LazyFrame], pl.LazyFrame]) -> None:
    with pytest.raises(TransformError, match=r".") as caught:
        prove_row_wise(function, SAMPLE)
    assert "ml.history" in caught.value.next


CALLS = itertools.count()
SEEN: list[float] = []


def counting(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.select("s", n=pl.col("x") + next(CALLS))


def random_values(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.select("s", n=pl.col("x").map_batches(lambda x: x + np.random.default_rng().random(), return_dtype=pl.Float64))


def sized(rows: pl.LazyFrame) -> pl.LazyFrame:
    big = rows.select(pl.len()).collect().item() > 600
    return rows.select("s", n=pl.col("x") * (2 if big else 1))


def null_minded(rows: pl.LazyFrame) -> pl.LazyFrame:
    empty = rows.select(pl.col("s").is_null().all()).collect().item()
    return rows.select("s", n=pl.lit(0.0) if empty else pl.col("x"))


def shifty_type(rows: pl.LazyFrame) -> pl.LazyFrame:
    empty = rows.select(pl.col("x").is_null().all()).collect().item()
    return rows.select("s", n=pl.col("x").cast(pl.String if empty else pl.Float64))


def learning(rows: pl.LazyFrame) -> pl.LazyFrame:
    SEEN.append(rows.select(pl.col("x").max()).collect().item() or 0.0)
    return rows.select("s", n=pl.col("x") / max(SEEN[-2:]))


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (counting, "given a second time"),
        (random_values, "given a second time"),
        (sized, "repeated"),
        (null_minded, "changes when the rows are"),
        (shifty_type, "its type: Float64, then String"),
        (learning, "changes when the rows are"),
    ],
)
def test_state_chance_and_the_shape_of_the_frame_are_refused_by_name(
    function: Callable[[pl.LazyFrame], pl.LazyFrame], words: str
) -> None:
    with pytest.raises(TransformError, match=words) as caught:
        prove_row_wise(function, SAMPLE)
    assert caught.value.facts["column"] == "n"
    assert caught.value.facts["function"] == function.__name__


def test_a_value_that_is_null_alone_and_something_beside_others_is_refused() -> None:
    def quiet(rows: pl.LazyFrame) -> pl.LazyFrame:
        # Null rows alone give nulls either way; only a frame that lacks `s` while it has `x` tells.
        empty = rows.select(pl.col("s").is_null().all()).collect().item()
        return rows.select(n=pl.col("x") * (3 if empty else 2))

    with pytest.raises(TransformError, match="'n' of quiet changes when the rows are in a frame without values of s"):
        prove_row_wise(quiet, SAMPLE.with_columns(pl.col("s").fill_null("e")))


NUMBERS = [pl.col("x"), pl.col("y"), pl.col("k").cast(pl.Float64)]


def row_wise(numbers: st.SearchStrategy[pl.Expr]) -> st.SearchStrategy[pl.Expr]:
    return st.one_of(
        st.tuples(numbers, numbers).map(lambda p: p[0] + p[1]),
        st.tuples(numbers, numbers).map(lambda p: p[0] * p[1] - 1),
        st.tuples(numbers, numbers).map(lambda p: pl.when(p[0] > 0).then(p[1]).otherwise(None)),
        st.tuples(numbers, numbers).map(lambda p: pl.max_horizontal(p[0], p[1])),
        numbers.map(lambda e: e.fill_null(0).clip(-5, 5)),
        numbers.map(lambda e: e.abs().sqrt().round(3)),
        numbers.map(lambda e: e.is_null().cast(pl.Float64)),
        numbers.map(lambda e: pl.concat_str(e.cast(pl.String), "s").str.len_chars().cast(pl.Float64)),
    )


EXPRESSIONS = st.recursive(st.sampled_from(NUMBERS), row_wise, max_leaves=5)

# Each looks at other rows of a column in which no two values are alike.
WHOLE: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "mean": lambda e: e - e.mean(),
    "max": lambda e: e / e.max(),
    "rank": lambda e: e.rank(),
    "shift": lambda e: e.shift(1),
    "diff": lambda e: e.diff(),
    "cum_sum": lambda e: e.cum_sum(),
    "sort": lambda e: e.sort(),
    "reverse": lambda e: e.reverse(),
    "over": lambda e: e - e.mean().over("k"),
    "sample": lambda e: e.sample(fraction=1.0, shuffle=True),
    "shuffle": lambda e: e.shuffle(seed=1),
    "forward_fill": lambda e: e.forward_fill() + e.backward_fill(),
    "rolling": lambda e: e.rolling_mean(2),
    "ewm": lambda e: e.ewm_mean(alpha=0.5),
    "first": lambda e: e - e.first(),
    "len": lambda e: e + pl.len(),
    "int_range": lambda e: e + pl.int_range(pl.len()),
    "interpolate": lambda e: e.interpolate(),
    "n_unique": lambda e: e + e.n_unique(),
}
FRAMES: dict[str, Callable[[pl.LazyFrame], pl.LazyFrame]] = {
    "filter": lambda r: r.filter(pl.col("x").is_not_null()),
    "sort": lambda r: r.sort("y"),
    "head": lambda r: r.head(5),
    "reverse": lambda r: r.reverse(),
    "unique": lambda r: r.select("k").unique(),
    "drop_nulls": lambda r: r.drop_nulls(),
    "value_counts": lambda r: r.select(pl.col("s").value_counts()).unnest("s"),
    "explode": lambda r: r.with_columns(v=pl.concat_list("x", "y")).explode("v"),
    "group_by": lambda r: r.group_by("k").agg(pl.col("x").sum()),
    "tail": lambda r: r.tail(1),
}


def many_rows(seed: int) -> pl.DataFrame:
    dice = np.random.default_rng(seed)
    x = [None if i % 7 == 3 else float(v) for i, v in enumerate(dice.normal(size=24))]
    return pl.DataFrame({"x": x, "y": dice.normal(size=24), "k": dice.integers(0, 3, 24), "s": [*"abcdef"] * 4})


@settings(max_examples=40, deadline=None)
@given(st.lists(EXPRESSIONS, min_size=1, max_size=3), st.integers(0, 99))
def test_any_row_wise_function_is_proven(expressions: list[pl.Expr], seed: int) -> None:
    prove_row_wise(lambda r: r.select("s", **{f"f{i}": e for i, e in enumerate(expressions)}), many_rows(seed))


@settings(max_examples=60, deadline=None)
@given(EXPRESSIONS, st.sampled_from(sorted(WHOLE)), st.integers(0, 99))
def test_any_function_with_one_feature_of_the_whole_is_refused_by_its_name(good: pl.Expr, whole: str, seed: int) -> None:
    def function(rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows.select(fine=good, guilty=WHOLE[whole](pl.col("x")))

    with pytest.raises(TransformError, match=r".") as caught:
        prove_row_wise(function, many_rows(seed), seed=seed)
    assert caught.value.facts["column"] == "guilty"


@pytest.mark.parametrize("name", FRAMES)
def test_a_function_that_changes_which_rows_there_are_is_refused(name: str) -> None:
    with pytest.raises(TransformError, match=r".") as caught:
        prove_row_wise(FRAMES[name], many_rows(0))
    assert "ml.history" in caught.value.next


NO_VALUES = {
    "Float64": lambda c: c.fill_null(c.mean()),
    "Int32": lambda c: c.rank(),
    "Decimal(38, 10)": lambda c: (c - c.mean()).cast(pl.Float64),
    "Boolean": lambda c: c.any(),
    "String": lambda c: c.shift(),
    "Categorical": lambda c: c.cast(pl.String).first(),
    "Datetime": lambda c: (c - c.min()).dt.total_seconds(),
    "Datetime(ms, Asia/Tokyo)": lambda c: (c - c.min()).dt.total_seconds(),
    "Date": lambda c: c.dt.epoch("d").cum_sum(),
    "Duration": lambda c: c.dt.total_seconds().max(),
}
TYPES: dict[str, pl.DataType] = {
    "Float64": pl.Float64(), "Int32": pl.Int32(), "Decimal(38, 10)": pl.Decimal(38, 10), "Boolean": pl.Boolean(),
    "String": pl.String(), "Categorical": pl.Categorical(), "Datetime": pl.Datetime("us", "UTC"),
    "Datetime(ms, Asia/Tokyo)": pl.Datetime("ms", "Asia/Tokyo"), "Date": pl.Date(), "Duration": pl.Duration("us"),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_VALUES)
def test_a_column_without_values_hides_no_look_at_other_rows(name: str) -> None:
    # Such as a history before the first row of its table is known.
    rows = pl.DataFrame({"id": range(20), "h.m": pl.Series([None] * 20, dtype=TYPES[name])})
    with pytest.raises(TransformError, match=r"feature 'f' of .* changes when the rows are"):
        prove_row_wise(lambda r: r.select("id", f=NO_VALUES[name](pl.col("h.m"))), rows)
    prove_row_wise(lambda r: r.select("id", f="h.m", n=pl.col("h.m").is_null()), rows)


def test_a_column_of_one_value_hides_no_look_at_other_rows() -> None:
    rows = pl.DataFrame({"id": range(20), "x": [3.0] * 20})
    with pytest.raises(TransformError, match="feature 'x'"):
        prove_row_wise(lambda r: r.select(pl.col("x") - pl.col("x").mean()), rows)


def test_a_filter_that_a_column_without_values_passes_is_refused() -> None:
    rows = pl.DataFrame({"id": range(20), "x": pl.Series([None] * 20, dtype=pl.Int64)})
    with pytest.raises(TransformError, match="made 4 rows of 20"):
        prove_row_wise(lambda r: r.filter(pl.col("id").is_null() | pl.col("x").fill_null(0).lt(1)).select("id"), rows)


def test_a_function_that_takes_no_made_up_values_is_proven_without_them() -> None:
    rows = pl.DataFrame({"id": range(20), "carrier": ["AA"] * 20})
    prove_row_wise(lambda r: r.select("id", c=pl.col("carrier").replace_strict({"AA": 1})), rows)


def test_a_failing_function_is_named_with_its_cause() -> None:
    def broken(rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows.select("nowhere")

    with pytest.raises(TransformError, match="broken failed: ColumnNotFoundError"):
        run_transform(broken, SAMPLE)


def test_features_are_encoded_as_the_contract_says() -> None:
    train = pl.DataFrame({"n": [1, None], "c": ["b", "a"], "t": [instant("2000-01-02"), None], "b": [True, False]})
    specs = feature_specs(train)
    assert [s.kind for s in specs] == ["number", "category", "number", "number"]
    matrix = encode(train, specs)
    assert matrix.dtype == np.float32
    assert matrix.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(matrix, [[1, 1, 1, 1], [np.nan, 0, np.nan, 0]])


def test_unseen_categories_and_infinities_do_not_stop_a_prediction() -> None:
    specs = (FeatureSpec(name="c", kind="category", categories=("a",)), FeatureSpec(name="n", kind="number"))
    features = pl.DataFrame({"c": ["a", "z", None], "n": [math.inf, 1e300, -1.0]})
    matrix = encode(features, specs)
    np.testing.assert_array_equal(matrix, [[0, np.nan], [-1, np.nan], [np.nan, -1]])
    assert unseen(features, specs, matrix) == {1: ("c",)}


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "zz", None]), st.one_of(st.none(), st.integers(-(2**60), 2**60))), max_size=6)
)
def test_few_rows_and_many_are_encoded_alike(rows: list[tuple[str | None, int | None]]) -> None:
    few = pl.DataFrame({"c": [r[0] for r in rows], "n": [r[1] for r in rows]}, schema={"c": pl.String, "n": pl.Int64})
    specs = (FeatureSpec(name="c", kind="category", categories=("a", "b")), FeatureSpec(name="n", kind="number"))
    many = pl.concat([few, few.clear(600)])
    np.testing.assert_array_equal(encode(few, specs), encode(many, specs)[: len(rows)])


def test_a_feature_that_no_model_takes_is_refused_by_name() -> None:
    with pytest.raises(TransformError, match="'l'"):
        feature_specs(pl.DataFrame({"l": [{"a": 1}]}))
    with pytest.raises(TransformError, match="no feature 'gone'"):
        encode(pl.DataFrame({"x": [1]}), [FeatureSpec(name="gone", kind="number")])
