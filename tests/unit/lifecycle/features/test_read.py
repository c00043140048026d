"""Serving's half of the join: one read a level, each value as the offline join has it, and how fresh it is."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mulle.adapters.online.lmdb import LmdbOnline
from mulle.core.clock import instant
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.features import asof, features, history, lookup
from mulle.core.declare.sources import Files
from mulle.core.ports.online import Ask, Found
from mulle.core.records.bundle import JoinSpec
from mulle.kernel.dtypes import dtype_text, schema_text
from mulle.lifecycle.features.join import join_offline, join_specs
from mulle.lifecycle.features.materialise import materialise
from mulle.lifecycle.features.read import OnlineReader

NOW = instant("2013-03-01T12:00:00Z")
HOUR = timedelta(hours=1)
US = pl.Datetime("us", "UTC")

flights = Dataset("flights", Files("f"), key="id", time="at")
planes = Dataset("planes", Files("p"), key="tail")
models = Dataset("models", Files("m"), key=["maker", "first"])
prices = Dataset("prices", Files("q"), key="day", time="at")


@features(
    flights,
    plane=lookup(planes, on="tail"),
    spare=lookup(planes, on="spare"),
    model=lookup(models, on={"plane.maker": "maker", "plane.first": "first"}),
    daily=asof(prices, on="model.approved", within="2h"),
    seats=history(flights, on={"plane.rows": "rows"}, window="6h", every="1h", n=pl.len(), last=pl.col("at").max()),
)
def nested(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows


TABLES = {
    "planes": pl.DataFrame(
        {
            "tail": ["N1", "N2", "N3"],
            "maker": ["A|x", "B", None],
            "first": [date(1999, 5, 1), date(2001, 1, 1), date(2001, 1, 1)],
            "rows": pl.Series([30, 31, None], dtype=pl.Int16),
            "weight": pl.Series([0.1, None, 2.5], dtype=pl.Float32),
            "flown": pl.Series([timedelta(hours=5), None, timedelta(0)], dtype=pl.Duration("us")),
            "old": [True, False, None],
            "count": pl.Series([2**63, None, 1], dtype=pl.UInt64),
        }
    ),
    "models": pl.DataFrame(
        {"maker": ["A|x", "B"], "first": [date(1999, 5, 1), date(2001, 1, 1)], "approved": [NOW - 9 * HOUR, NOW - 8 * HOUR]},
        schema_overrides={"approved": US},
    ),
    "prices": pl.DataFrame(
        {"day": [NOW - 9 * HOUR, NOW - 8 * HOUR], "at": [NOW - HOUR, NOW - 3 * HOUR], "euro": [1.5, 2.5]},
        schema_overrides={"day": US, "at": US},
    ),
    "flights": pl.DataFrame(
        {"id": range(20), "at": [NOW - i * HOUR / 3 for i in range(20)], "rows": [30.0, 31.0] * 10}, schema_overrides={"at": US}
    ),
}
SPECS = join_specs(nested, {n: schema_text(t) for n, t in TABLES.items()})


class Counted:
    """The store, and how often it was asked."""

    def __init__(self, online: LmdbOnline) -> None:
        self.online = online
        self.asked: list[Sequence[Ask]] = []

    def get(self, asks: Sequence[Ask]) -> list[Found | None]:
        self.asked.append(asks)
        return self.online.get(asks)


@pytest.fixture
def online(tmp_path: Path) -> Iterator[Any]:
    store = LmdbOnline(tmp_path)
    materialise(nested, TABLES, SPECS, store, until=NOW)
    yield Counted(store)
    store.close()


def requests(count: int) -> pl.DataFrame:
    chosen = random.Random(7)
    tails = ["N1", "N2", "N3", "N9", None]
    return pl.DataFrame(
        {
            "tail": [chosen.choice(tails) for _ in range(count)],
            "spare": [chosen.choice(tails) for _ in range(count)],
            "at": [NOW - chosen.randrange(300) * HOUR / 60 for _ in range(count)],
        },
        schema={"tail": pl.String, "spare": pl.String, "at": US},
    )


@pytest.mark.parametrize("count", [0, 1, 64, 1000])
def test_nested_joins_are_those_of_training(online: Any, count: int) -> None:
    rows = requests(count)
    found, fresh = OnlineReader(online, SPECS).join(rows, time="at", now=NOW)
    expected = join_offline(rows, nested, TABLES)
    assert found.equals(expected)
    assert found.schema == expected.schema
    assert len(fresh) == count
    assert count < 64 or all(found[c].null_count() < count for c in ("model.approved", "daily.euro", "seats.n"))


def test_a_level_of_joins_is_one_read(online: Any) -> None:
    OnlineReader(online, SPECS).join(requests(64), time="at", now=NOW)
    assert len(online.asked) == 3
    assert {table.split(".")[1] for table, _, _ in online.asked[0]} == {"plane", "spare"}


def test_how_fresh_each_join_is_goes_with_each_row(online: Any) -> None:
    rows = pl.DataFrame({"tail": ["N1", "N2", "N9"], "spare": ["N1"] * 3, "at": [NOW] * 3}, schema=requests(0).schema)
    found, fresh = OnlineReader(online, SPECS).join(rows, time="at", now=NOW)
    assert fresh == [
        {"daily": "2013-03-01T11:00:00Z", "seats": "2013-03-01T12:00:00Z"},
        {"daily": "2013-03-01T09:00:00Z", "seats": "2013-03-01T12:00:00Z"},
        {},
    ]
    assert found["daily.euro"].to_list() == [1.5, None, None]


def test_a_missing_time_means_now(online: Any) -> None:
    rows = pl.DataFrame({"tail": ["N1", "N1"], "spare": ["N1"] * 2, "at": [None, NOW - 9 * HOUR]}, schema=requests(0).schema)
    reader = OnlineReader(online, SPECS)
    assert reader.join(rows, time="at", now=NOW)[0]["daily.euro"].to_list() == [1.5, None]
    assert reader.join(rows, time=None, now=NOW)[0]["daily.euro"].to_list() == [1.5, 1.5]


@pytest.mark.parametrize(
    ("dtype", "number"),
    [
        (pl.Date(), -4_000),
        (pl.Time(), 86_399_999_999_999),
        (pl.Duration("ms"), -5),
        (pl.Duration("ns"), 2**62),
        (pl.Datetime("ms"), -1),
        (pl.Datetime("us", "UTC"), 253_402_300_799_000_001),
        (pl.Datetime("ns", "Europe/Berlin"), 1_773_718_326_720_001_001),
    ],
    ids=str,
)
def test_times_come_back_in_their_type(tmp_path: Path, dtype: pl.DataType, number: int) -> None:
    store = LmdbOnline(tmp_path)
    store.put("t", [("a", 0, {"v": number}), ("b", 0, {"v": None})])
    spec = JoinSpec(name="j", kind="lookup", dataset="d", table="t", on=("k",), columns={"v": dtype_text(dtype)})
    rows = pl.DataFrame({"k": ["b", "none", None, "a"]})
    found = OnlineReader(store, [spec]).join(rows, time=None, now=NOW)[0]["j.v"]
    assert found.dtype == dtype
    assert found.equals(pl.Series([None, None, None, number], dtype=pl.Int32 if dtype == pl.Date else pl.Int64).cast(dtype))
    store.close()


def test_only_the_columns_of_the_contract_are_built(online: Any) -> None:
    few = tuple(
        replace(s, columns={c: t for c, t in s.columns.items() if c in ("maker", "first", "approved")}) for s in SPECS[:3]
    )
    found, _ = OnlineReader(online, few).join(requests(5), time="at", now=NOW)
    assert found.columns[3:] == ["plane.maker", "plane.first", "spare.maker", "spare.first", "model.approved"]
    assert OnlineReader(online, ()).join(requests(5), time="at", now=NOW)[0].columns == requests(5).columns
