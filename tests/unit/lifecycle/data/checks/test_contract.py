"""The schema that was published is a contract; what breaks it is told with the edit that mends it."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from mulle.core.clock import instant
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.sources import Files
from mulle.core.records.dataset import CheckResult, DatasetVersion
from mulle.lifecycle.data.checks.check import Beside, check_batch

NOW = instant("2013-01-02")
HAVE = {"id": "Int64", "km": "Int64", "note": "String", "day": "Date"}
FRAME = pl.DataFrame({"id": [1], "km": [2], "note": ["n"], "day": [NOW.date()]})


def judged(frame: pl.DataFrame, schema: dict[str, str] | None = HAVE, **declared: Any) -> CheckResult:
    dataset = Dataset("d", Files("d"), **{"key": "id", **declared})
    version = None
    if schema is not None:
        version = DatasetVersion(
            id="v", created_at=NOW, dataset="d", version=1, rows=1, added=1, hash="h", schema=schema, table="t", lake_version=0
        )
    return check_batch(dataset, frame.lazy(), Beside(version=version), now=NOW)[0]


def test_the_same_columns_pass_in_any_order() -> None:
    result = judged(FRAME.select("note", "id", "day", "km").with_columns(_batch=pl.lit("b")))
    assert (result.name, result.verdict, result.detail, result.failed) == ("schema", "pass", "", 0)


def test_a_new_column_is_told_and_passes() -> None:
    result = judged(FRAME.with_columns(new=1, newer=2))
    assert (result.verdict, result.detail) == ("pass", "new columns: new, newer")
    assert judged(FRAME, schema=None).detail == ""


@pytest.mark.parametrize(
    ("frame", "detail"),
    [
        (FRAME.drop("note"), 'column \'note\' is missing. Suggested: Dataset("d", ..., optional=["note"])'),
        (FRAME.drop("id"), "column 'id' is missing. Suggested: mend the source (id)"),
        (
            FRAME.with_columns(pl.col("km") + 0.5),
            'column \'km\' is Float64, expected Int64. Suggested: Dataset("d", ..., schema={"km": "Float64"})',
        ),
        (
            FRAME.with_columns(pl.col("km").cast(pl.String)),
            "column 'km' is String, expected Int64. Suggested: mend the source (km)",
        ),
        (
            FRAME.drop("note").with_columns(pl.col("km").cast(pl.String), pl.lit(NOW).alias("day")),
            "column 'note' is missing; column 'km' is String, expected Int64; column 'day' is Datetime(us, UTC), expected Date. "
            'Suggested: Dataset("d", ..., optional=["note"], schema={"day": "Datetime(us, UTC)"}); mend the source (km)',
        ),
    ],
)
def test_what_breaks_the_contract_is_told_with_its_remedy(frame: pl.DataFrame, detail: str) -> None:
    result = judged(frame)
    assert (result.verdict, result.failed, result.detail) == ("fail", 1, detail)


def test_following_the_suggestion_mends_it() -> None:
    assert judged(FRAME.drop("note"), optional="note").verdict == "pass"
    assert judged(FRAME.with_columns(pl.col("km") + 0.5), schema=HAVE).verdict == "fail"
    dataset = Dataset("d", Files("d"), key="id", schema={"km": "Float64"})
    found = check_batch(dataset, FRAME.with_columns(pl.col("km") + 0.5).lazy(), Beside(version=_version()), now=NOW)
    assert found[0].verdict == "pass"
    day = Dataset("d", Files("d"), key="id", schema={"day": "Datetime"})
    assert check_batch(day, FRAME.with_columns(day=NOW).lazy(), Beside(version=_version()), now=NOW)[0].verdict == "pass"


def test_declared_columns_are_wanted_from_the_first_batch_on() -> None:
    assert judged(FRAME.drop("id"), schema=None).detail == "column 'id' is declared and missing. Suggested: mend the source (id)"
    assert judged(FRAME, schema=None, outcome="minutes").verdict == "fail"


def test_outcomes_of_their_own_source_may_be_absent() -> None:
    late = {"time": "day", "known_at": "known", "outcome": "minutes", "labels": Files("labels.csv")}
    assert judged(FRAME, schema={**HAVE, "minutes": "Float64", "known": "Datetime(us, UTC)"}, **late).verdict == "pass"


def _version() -> DatasetVersion:
    return DatasetVersion(
        id="v", created_at=NOW, dataset="d", version=1, rows=1, added=1, hash="h", schema=HAVE, table="t", lake_version=0
    )
