"""What a request may carry, what a feature function may do, and how features become numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
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
        feature_specs(pl.DataFrame({"l": [[1]]}))
    with pytest.raises(TransformError, match="no feature 'gone'"):
        encode(pl.DataFrame({"x": [1]}), [FeatureSpec(name="gone", kind="number")])
