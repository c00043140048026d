"""Each check finds its rows, counts them exactly and shows some of them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mulle.core.clock import instant
from mulle.core.declare.checks import (
    between,
    foreign_key,
    fresh,
    holds,
    increasing,
    matches,
    no_duplicates,
    not_null,
    one_of,
    rows,
    rows_as_source,
    rows_like_previous,
    same_distribution,
    sql,
    unique,
)  # fmt: skip
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.sources import Files
from mulle.core.errors import DataError, Unavailable
from mulle.core.records.dataset import CheckResult, DatasetVersion
from mulle.lifecycle.data.checks.check import Beside, check_batch, referenced

NOW = instant("2013-01-02")
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
legs = Dataset("legs", Files("l"), key=["origin", "dest"])
REFERENCES = {
    "carriers": pl.LazyFrame({"carrier": ["AA", "BB", "CC"]}),
    "legs": pl.LazyFrame({"origin": ["A", "B"], "dest": ["X", "Y"]}),
}


def version(**facts: Any) -> DatasetVersion:
    told: dict[str, Any] = {"rows": 10, "added": 4, "schema": {}, **facts}
    return DatasetVersion(id="v", created_at=NOW, dataset="d", version=1, hash="h", table="data/d", lake_version=1, **told)


def judged(*checks: Any, frame: pl.DataFrame = FRAME, declared: dict[str, Any] | None = None, **beside: Any) -> list[CheckResult]:
    dataset = Dataset("d", Files("d"), checks=checks, **(declared or {"key": "id"}))
    return list(check_batch(dataset, frame.lazy(), Beside(**{"references": REFERENCES, **beside}), now=NOW))


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
        (one_of("id", [1.0, 2.5]), 2),
        (foreign_key("code", carriers), 1),
        (between("x", 0, 10), 2),
        (between("at", "2013-01-01", "2013-01-01"), 0),
        (between("at", "2013-01-01T00:00:01Z", "2014-01-01T00:00:00Z"), 4),
        (matches("code", "^A"), 2),
        (holds(pl.col("id") > 1), 1),
        (holds("id > 1 or code = 'AA'"), 0),
        (increasing("id"), 0),
        (increasing("id", strictly=True), 1),
        (increasing("code"), 1),
        (fresh("at", "1d"), 0),
        (fresh("at", "23h"), 4),
        (no_duplicates(), 0),
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
    frame = pl.DataFrame({"id": range(100), "x": [float("inf")] * 100, "at": [NOW] * 100, "text": ["é" * 10_000] * 100})
    result = judged(between("x", 0, 1), frame=frame)[1]
    assert (result.failed, len(result.samples)) == (100, 20)
    assert result.samples[0] == {"id": 0, "x": "inf", "at": "2013-01-02T00:00:00Z", "text": "é" * 500 + "…"}


def test_samples_are_the_first_failing_rows_of_each_check_in_order(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pl.DataFrame({"n": range(200_000)}).write_parquet(path, row_group_size=10_000)
    middle = pl.col("n").is_between(199_000, 199_003) & (pl.col("n").max() == 199_999)
    checks = [holds("n % 1000 <> 999"), between("n", 0, 199_990), between("n", 60_000, 199_998), unique("n"), holds(~middle)]
    dataset = Dataset("d", Files("d"), checks=[*checks, between("n", 30, 10**6), between("n", 10, 199_998)])
    found = check_batch(dataset, pl.scan_parquet(path), Beside(), now=NOW)[1:]
    assert [[s["n"] for s in r.samples] for r in found] == [
        list(range(999, 20_000, 1000)),
        list(range(199_991, 200_000)),
        list(range(20)),
        [],
        [199_000, 199_001, 199_002, 199_003],
        list(range(20)),
        [*range(10), 199_999],
    ]


def test_a_warning_does_not_fail() -> None:
    assert [r.verdict for r in judged(not_null("x", severity="warn"))] == ["pass", "warn"]


def test_checks_of_one_name_are_told_apart() -> None:
    assert [r.name for r in judged(between("x", 0, 1), between("x", 0, 2))] == ["schema", "between(x)", "between(x) #2"]


# Uniqueness: a row that takes the place of its own earlier version is no violation.


def test_an_upsert_is_no_violation() -> None:
    published = pl.LazyFrame({"id": [1, 7], "y": [0, 0]})
    assert judged(unique("id"), frame=FRAME[:2], published=published)[1].verdict == "pass"
    assert judged(unique("id"), frame=FRAME[:2], published=published, declared={"key": None})[1].failed == 1


def test_a_value_of_a_published_row_that_stays_is_taken() -> None:
    published = pl.LazyFrame({"id": [1, 2, 3], "mail": ["a", "b", "c"]})
    for ids, mails, failed in (
        ([1], ["a"], 0),  # again as it was
        ([1], ["b"], 1),  # what another row has
        ([1, 2], ["b", "a"], 0),  # both are replaced: they swap
        ([4, 5], ["c", "d"], 1),
        ([4], [None], 0),
        ([4, 5], ["e", "e"], 2),
    ):
        frame = pl.DataFrame({"id": ids, "mail": mails}, schema={"id": pl.Int64, "mail": pl.String})
        result = judged(unique("mail"), frame=frame, published=published)[1]
        assert (result.failed, len(result.samples)) == (failed, failed), (ids, mails)


def test_the_same_key_at_another_time_is_another_row() -> None:
    published = pl.LazyFrame({"id": [1], "at": [instant("2013-01-01")]})
    declared = {"key": "id", "time": "at"}
    for at, failed in (("2013-01-01", 0), ("2013-01-02", 1)):
        frame = pl.DataFrame({"id": [1], "at": [instant(at)]})
        assert judged(unique("id"), frame=frame, published=published, declared=declared)[1].failed == failed


# Rows: of the batch, of the table, against the previous batch, against the source.


def test_rows_of_the_table_count_an_upsert_once() -> None:
    published = pl.LazyFrame({"id": [1, 7, 9], "x": [0.0] * 3})
    check = rows(at_most=4, of="table")
    assert judged(check, published=published, version=version(rows=3))[1].detail == "5 rows in the table, at most 4 wanted"
    assert judged(check, frame=FRAME[:2], published=published, version=version(rows=3))[1].value == 4  # 1 and 2, 1 was there
    assert judged(check, frame=FRAME[:1], declared={"key": None}, published=published, version=version(rows=3))[1].value == 4
    assert judged(check, frame=FRAME[:2])[1].value == 2


@pytest.mark.parametrize(("added", "verdict"), [(4, "pass"), (8, "pass"), (9, "fail"), (3, "pass"), (2, "fail")])
def test_rows_are_compared_with_the_previous_batch(added: int, verdict: str) -> None:
    assert judged(rows_like_previous(within=0.5), version=version(added=added))[1].verdict == verdict


def test_the_first_batch_has_none_before_it() -> None:
    assert judged(rows_like_previous())[1].verdict == "pass"


def test_the_sources_own_count_is_held_against_the_rows() -> None:
    assert [(r.name, r.verdict, r.failed) for r in judged(counted=6)] == [("schema", "pass", 0), ("source_rows", "fail", 2)]
    assert [r.verdict for r in judged(rows_as_source(), counted=4)] == ["pass"] * 3
    assert judged(rows_as_source())[1].detail == "the source cannot count its rows"
    assert judged(rows_as_source())[1].verdict == "fail"


# Freshness and order.


def test_a_value_in_the_future_is_not_fresh() -> None:
    frame = pl.DataFrame({"at": [NOW, NOW + timedelta(seconds=1), None]})
    result = judged(fresh("at", "1h"), frame=frame, declared={"key": None})[1]
    assert (result.failed, result.value, len(result.samples)) == (1, -1.0, 1)
    assert judged(fresh("at", "1h"), frame=frame.clear(), declared={"key": None})[1].detail == "no value"


def test_freshness_knows_dates_and_zones() -> None:
    zoned = pl.Series([NOW]).dt.convert_time_zone("Asia/Seoul")
    for values, age in ((pl.Series([NOW.date()]), 0.0), (zoned, 0.0), (pl.Series([NOW.replace(tzinfo=None)]), 0.0)):
        assert judged(fresh("at", "1h"), frame=pl.DataFrame({"at": values}), declared={"key": None})[1].value == age


def test_order_is_judged_within_groups() -> None:
    frame = pl.DataFrame({"meter": ["a", "b", "a", "b"], "reading": [5, 1, 4, 2]})
    result = judged(increasing("reading", by="meter"), frame=frame, declared={"key": None})[1]
    assert (result.failed, result.samples) == (1, ({"meter": "a", "reading": 4},))


# Distribution.


def test_a_shifted_distribution_fails_and_the_same_passes() -> None:
    before = pl.DataFrame({"x": [float(i % 100) for i in range(2_000)], "c": ["a", "a", "b", "c"] * 500})
    checks = (same_distribution("x"), same_distribution("c"))
    same = judged(*checks, frame=before[:1_000], published=before.lazy(), declared={"key": None})[1:]
    assert [r.verdict for r in same] == ["pass", "pass"]
    moved = before.with_columns(pl.col("x") + 40, c=pl.lit("b"))
    found = judged(*checks, frame=moved, published=before.lazy(), declared={"key": None})[1:]
    assert [r.verdict for r in found] == ["fail", "fail"]
    assert all(r.value is not None and r.value > 0.2 for r in found)


def test_few_rows_do_not_tell_of_a_distribution() -> None:
    before = pl.LazyFrame({"x": [float(i) for i in range(2_000)]})
    result = judged(same_distribution("x"), frame=pl.DataFrame({"x": [1e6] * 5}), published=before, declared={"key": None})[1]
    assert (result.verdict, result.detail) == ("pass", "too few rows to tell: 5 against 2000 published")
    assert judged(same_distribution("x"))[1].detail == "nothing published to compare with"


# References.


def test_a_composite_foreign_key_is_looked_up_as_a_whole() -> None:
    frame = pl.DataFrame({"a": ["A", "A", "B", None], "b": ["X", "Y", "Y", "Z"]})
    result = judged(foreign_key(["a", "b"], legs), frame=frame, declared={"key": None})[1]
    assert (result.failed, result.samples) == (1, ({"a": "A", "b": "Y"},))


def test_many_codes_are_found_as_few_are() -> None:
    many = {"carriers": pl.LazyFrame({"carrier": ["AA", "BB", *(f"c{i}" for i in range(5_000))]})}
    result = judged(one_of("code", carriers), references=many)[1]
    assert (result.failed, [s["code"] for s in result.samples]) == (1, ["ZZ"])


def test_the_datasets_that_checks_name_are_listed_once() -> None:
    dataset = Dataset("d", Files("d"), checks=[one_of("a", carriers), foreign_key("b", carriers), foreign_key(["o", "d"], legs)])
    assert [d.name for d in referenced(dataset)] == ["carriers", "legs"]


# What cannot be judged.


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (not_null("gone"), "no column 'gone'"),
        (unique("id", "gone"), "no column 'gone'"),
        (increasing("id", by="gone"), "no column 'gone'"),
        (not_null("_batch"), "no column '_batch'"),
        (between("code", 0, 1), "expected numbers"),
        (between("x", "2013-01-01", "2013-01-02"), "expected times"),
        (fresh("x", "1h"), "expected times"),
        (same_distribution("at"), "expected numbers, text or booleans"),
        (matches("x", "a"), "expected text"),
        (matches("code", "("), "pattern"),
        (one_of("id", carriers), "is Int64"),
        (foreign_key("id", carriers), "is Int64"),
        (one_of("code", Dataset("none", Files("n"), key="k")), "no published rows"),
        (foreign_key("code", Dataset("none", Files("n"), key="k")), "no published rows"),
        (holds("gone > 1"), "gone"),
        (holds("id +"), "cannot be read"),
        (holds(pl.col("id") + 1), "gives Int64"),
        (holds(pl.col("code").cast(pl.Int64) > 0), "conversion"),
        (sql("select nope from d"), "nope"),
        (sql("select * from read_csv('/etc/passwd')"), "fails"),
        (sql("select * from FRAME"), "FRAME"),
        (sql("drop table d"), "fails"),
        (sql("select 1); set lock_configuration = false; select (1"), "fails"),
    ],
)
def test_a_check_that_cannot_be_judged_fails_with_its_cause_and_alone(check: Any, words: str) -> None:
    _, result, other = judged(check, not_null("x"))
    assert result.verdict == "fail"
    assert words in result.detail
    assert other.failed == 2


def test_rows_that_cannot_be_read_are_no_verdict(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    FRAME.write_parquet(path)
    lazy = pl.scan_parquet(path, schema=FRAME.schema)
    path.unlink()
    with pytest.raises(Unavailable, match="cannot be read"):
        check_batch(Dataset("d", Files("d"), checks=[not_null("x")]), lazy, Beside(), now=NOW)


def test_a_store_that_is_away_is_no_verdict_on_a_check(tmp_path: Path) -> None:
    pl.DataFrame({"carrier": ["AA"]}).write_parquet(tmp_path / "carriers.parquet")
    away = pl.scan_parquet(tmp_path / "carriers.parquet", schema={"carrier": pl.String})
    (tmp_path / "carriers.parquet").unlink()
    with pytest.raises(Unavailable, match="cannot be read"):
        judged(foreign_key("code", carriers), references={"carriers": away})


def test_a_staged_file_that_is_cut_short_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    FRAME.write_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    lazy = pl.scan_parquet(path, schema=FRAME.schema)
    with pytest.raises(DataError, match="dataset d: rows cannot be read"):
        check_batch(Dataset("d", Files("d"), checks=[not_null("x")]), lazy, Beside(), now=NOW)


def test_an_empty_batch_can_be_judged() -> None:
    checks = (
        rows(at_least=1),
        unique("id"),
        no_duplicates(),
        increasing("id"),
        foreign_key("code", carriers),
        sql("select * from d"),
    )
    assert [r.verdict for r in judged(*checks, frame=FRAME.clear())] == ["pass", "fail", *["pass"] * 5]


def test_an_audit_of_a_whole_version_leaves_out_what_tells_of_batches() -> None:
    frame = pl.DataFrame({"id": [3, 4, 1, 2], "_batch": ["b", "b", "a", "a"]})
    checks = (
        rows(at_most=1), rows(at_least=4, of="table"), rows_like_previous(within=0.1), rows_as_source(), unique("id"),
        increasing("id"), same_distribution("id"),
    )  # fmt: skip
    found = judged(*checks, frame=frame, published=frame.lazy(), version=version(rows=4, added=1), whole=True)
    assert {r.verdict for r in found} == {"pass"}
    assert judged(increasing("id"), frame=frame[::-1], whole=True)[1].failed == 2
