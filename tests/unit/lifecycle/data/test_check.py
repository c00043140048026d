"""Each check finds its rows, counts them exactly and shows some of them."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from mulle.core.clock import instant
from mulle.core.declare.checks import between, matches, not_null, one_of, rows, sql, unique
from mulle.core.declare.dataset import Dataset, Files
from mulle.core.records.dataset import CheckResult
from mulle.lifecycle.data.check import check_batch

FRAME = pl.DataFrame(
    {
        "id": [1, 2, 2, None],
        "x": [1.0, float("nan"), None, 50.0],
        "code": ["AA", "ZZ", None, "BB"],
        "at": [instant("2013-01-01")] * 4,
        "_batch": ["b"] * 4,
    }
)
carriers = Dataset("carriers", Files("c"), key="carrier")


def judged(
    *checks: Any, frame: pl.DataFrame = FRAME, published: pl.LazyFrame | None = None, schema: dict[str, str] | None = None
) -> tuple[CheckResult, ...]:
    dataset = Dataset("d", Files("d"), key="id", checks=checks)
    references = {"carriers": pl.DataFrame({"carrier": ["AA", "BB", "CC"]})}
    return check_batch(dataset, frame, published=published, references=references, schema=schema)


@pytest.mark.parametrize(
    ("check", "failed"),
    [
        (rows(at_least=4), 0),
        (rows(at_least=6), 2),
        (rows(at_most=1), 3),
        (unique("id"), 2),
        (unique("id", "x"), 0),
        (not_null("x"), 2),
        (not_null("at"), 0),
        (one_of("code", ["AA", "BB"]), 1),
        (one_of("code", carriers), 1),
        (one_of("id", [1]), 2),
        (between("x", 0, 10), 2),
        (matches("code", "^A"), 2),
        (sql("select * from d where x > 10 and not isnan(x)"), 1),
        (sql('select "at" from d where "at" < timestamptz \'2014-01-01 00:00:00Z\';'), 4),
    ],
)
def test_a_check_counts_its_failing_rows(check: Any, failed: int) -> None:
    result = judged(check)[1]
    assert (result.failed, result.rows) == (failed, 4)
    assert result.verdict == ("fail" if failed else "pass")
    assert result.name == check[0].name
    assert "fails" not in result.detail


def test_samples_are_json_and_bounded() -> None:
    frame = pl.DataFrame({"id": range(100), "x": [float("inf")] * 100, "at": [instant("2013-01-01")] * 100})
    result = judged(between("x", 0, 1), frame=frame)[1]
    assert (result.failed, len(result.samples)) == (100, 20)
    assert result.samples[0] == {"id": 0, "x": "inf", "at": "2013-01-01T00:00:00Z"}


def test_a_warning_does_not_fail() -> None:
    assert [r.verdict for r in judged(not_null("x", severity="warn"))] == ["pass", "warn"]


def test_uniqueness_is_judged_against_what_is_published() -> None:
    published = pl.LazyFrame({"id": [1, 7], "y": [0, 0]})
    assert [judged(unique("id"), frame=FRAME[:2], published=p)[1].failed for p in (None, published)] == [0, 1]


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (not_null("gone"), "no column 'gone'"),
        (unique("id", "gone"), "no column 'gone'"),
        (between("code", 0, 1), "expected numbers"),
        (matches("x", "a"), "expected text"),
        (matches("code", "("), "pattern"),
        (one_of("id", carriers), "is Int64"),
        (one_of("code", Dataset("none", Files("n"), key="k")), "no published rows"),
        (sql("select nope from d"), "nope"),
        (sql("select * from read_csv('/etc/passwd')"), "fails"),
        (sql("select * from FRAME"), "FRAME"),
        (sql("drop table d"), "fails"),
        (sql("select 1); set lock_configuration = false; select (1"), "fails"),
    ],
)
def test_a_check_that_cannot_be_judged_fails_with_its_cause(check: Any, words: str) -> None:
    result = judged(check)[1]
    assert result.verdict == "fail"
    assert words in result.detail


def test_the_schema_is_a_contract() -> None:
    frame = FRAME.drop("code").with_columns(id=pl.col("id").cast(pl.String), new=pl.lit(1))
    have = {"id": "Int64", "x": "Float64", "code": "String"}
    result = judged(frame=frame, schema=have)[0]
    assert (result.name, result.verdict) == ("schema", "fail")
    assert "'code' is missing" in result.detail
    assert "'id' is String, expected Int64" in result.detail
    assert judged(frame=FRAME.drop("id"))[0].detail == "column 'id' is declared and missing"


def test_an_empty_batch_can_be_judged() -> None:
    assert [r.verdict for r in judged(rows(at_least=1), unique("id"), sql("select * from d"), frame=FRAME.clear())] == [
        "pass", "fail", "pass", "pass",
    ]  # fmt: skip
