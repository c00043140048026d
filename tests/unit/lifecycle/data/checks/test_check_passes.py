"""A user's function tells what is wrong in whichever way it likes; what it raises is its verdict."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from mulle.core.clock import instant
from mulle.core.declare.checks import passes, sql
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.sources import Files
from mulle.core.records.dataset import CheckResult
from mulle.lifecycle.data.checks.check import Beside, check_batch

FRAME = pl.DataFrame({"id": [1, 2, 3], "x": [5, -1, None], "_batch": ["b"] * 3})


def judged(function: Any, frame: pl.DataFrame = FRAME) -> CheckResult:
    dataset = Dataset("d", Files("d"), checks=passes(function, name="mine"))
    return check_batch(dataset, frame.lazy(), Beside(), now=instant("2013-01-01"))[1]


class SchemaErrors(Exception):
    """Looks like what pandera raises."""

    def __init__(self, cases: Any) -> None:
        super().__init__('{"DATA": "a long report"}')
        self.failure_cases = cases


def raising(error: Exception) -> Any:
    def function(rows: pl.DataFrame) -> None:
        raise error

    return function


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        (None, 0),
        (True, 0),
        (False, 3),
        (FRAME["x"] > 0, 1),
        (pl.Series([False]), 3),
        (FRAME.filter(pl.col("x") < 0), 1),
        (FRAME.lazy().filter(pl.col("x") < 0), 1),
        (FRAME.clear(), 0),
        ([], 0),
        (["x is odd", "y is even"], 2),
    ],
)
def test_each_kind_of_answer_is_understood(answer: Any, failed: int) -> None:
    result = judged(lambda rows: answer)
    assert (result.name, result.failed, result.verdict) == ("mine", failed, "fail" if failed else "pass")


def test_samples_are_the_rows_it_refuses() -> None:
    assert judged(lambda rows: rows["x"] > 0).samples == ({"id": 2, "x": -1},)
    assert judged(lambda rows: rows.filter(pl.col("x").is_null())).samples == ({"id": 3, "x": None},)


def test_messages_are_told() -> None:
    assert judged(lambda rows: ["a", "b", "c", "d"]).detail == "a; b; c (and 1 more)"


def test_no_bookkeeping_is_shown_and_nothing_it_does_stays() -> None:
    def spoil(rows: pl.DataFrame) -> bool:
        columns = rows.columns
        rows.insert_column(0, pl.Series("spoilt", [0, 0, 0]))
        return columns == ["id", "x"]

    dataset = Dataset("d", Files("d"), checks=[passes(spoil), passes(spoil), sql("select spoilt from d")])
    found = check_batch(dataset, FRAME.lazy(), Beside(), now=instant("2013-01-01"))
    assert [r.verdict for r in found] == ["pass", "pass", "pass", "fail"]


def test_what_it_raises_is_told() -> None:
    result = judged(raising(ValueError("no good\nand more")))
    assert (result.verdict, result.failed, result.detail) == ("fail", 3, "the function raised ValueError: no good")
    assert judged(raising(OSError("no such file"))).detail == "the function raised OSError: no such file"
    assert judged(raising(ValueError("empty")), frame=FRAME.clear()).verdict == "fail"


class Pandas:
    """Looks like a pandas frame."""

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self.records = records

    def to_dict(self, how: str) -> list[dict[str, Any]]:
        assert how == "records"
        return self.records


CASES = [
    {"failure_case": "-1", "schema_context": "Column", "column": "x", "check": "greater_than(0)", "check_number": 0, "index": 1},
    {"failure_case": "-1", "schema_context": "Column", "column": "x", "check": "in_range(0, 9)", "check_number": 1, "index": 1},
    {"failure_case": "0", "schema_context": "Column", "column": "x", "check": "in_range(0, 9)", "check_number": 1, "index": 2},
]


@pytest.mark.parametrize("cases", [pl.DataFrame(CASES), Pandas([{**c, "index": np.int64(c["index"])} for c in CASES])])
def test_failure_cases_are_counted_by_row_and_shown(cases: Any) -> None:
    result = judged(raising(SchemaErrors(cases)))
    assert result.failed == 2
    assert result.detail == "2 of 3 rows: x greater_than(0), x in_range(0, 9)"
    assert result.samples[0] == CASES[0]
    assert len(result.samples) == 3


def test_failure_cases_that_name_no_row_are_counted_themselves() -> None:
    cases = pl.DataFrame({"failure_case": ["x"], "column": [None], "check": ["column_in_schema"], "index": [None]})
    result = judged(raising(SchemaErrors(cases)))
    assert (result.failed, result.detail) == (1, "1 of 3 rows: x column_in_schema")
    assert judged(raising(SchemaErrors("x"))).failed == 3


def test_an_answer_of_another_kind_is_refused_by_name() -> None:
    assert "gave int" in judged(lambda rows: 3).detail
    assert "gave 2 values" in judged(lambda rows: pl.Series([True, True])).detail
    assert "gave 3 values of Int64" in judged(lambda rows: rows["id"]).detail


def test_a_batch_that_is_handed_back_fails_with_a_hint() -> None:
    result = judged(lambda rows: rows)
    assert (result.failed, result.verdict) == (3, "fail")
    assert "must return nothing instead" in result.detail
