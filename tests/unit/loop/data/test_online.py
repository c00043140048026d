"""The online store beside a project: what is published reaches it, once, and what is taken back leaves it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest

from mulle.core.clock import instant, rfc3339
from mulle.core.ports.online import Mark
from mulle.core.records.base import Cause
from mulle.lifecycle.features.join import join_offline
from mulle.lifecycle.features.read import OnlineReader
from mulle.loop.data.datasets import restore_version
from mulle.loop.data.ingest import ingest_all
from mulle.loop.data.online import deployed_features, published_tables, refresh_online, specs_of
from mulle.loop.parts import Parts

Opened = Callable[..., Parts]
WHY = (Cause(type="person", id="ada", why="asked"),)
PROJECT = """
planes = ml.Dataset("planes", ml.Files("planes/*.csv"), key="tail")
weather = ml.Dataset("weather", ml.Files("weather/*.csv"), key="origin", time="seen")
flights = ml.Dataset("flights", ml.Files("flights/*.csv"), key="id", time="at", known_at="landed", outcome="y")

@ml.features(
    flights,
    plane=ml.lookup(planes, on="tail"),
    weather=ml.asof(weather, on="origin", within="2d"),
    route=ml.history(flights, on="origin", window="1d", every="1h", n=pl.len(), mean=pl.col("y").mean()),
)
def found(rows):
    return rows.select("plane.year", "weather.wind", "route.n")

model = ml.Model("m", features=found, target="y", task="regression")
"""
HOUR = timedelta(hours=1)


def write(parts: Parts, file: str, *lines: str) -> None:
    path = parts.settings.project / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def a_day(parts: Parts, name: str, start: datetime, y: float, count: int = 24) -> None:
    rows = [f"{name}-{i},A,N1,{rfc3339(start + i * HOUR)},{rfc3339(start + (i + 1) * HOUR)},{y}" for i in range(count)]
    write(parts, f"flights/{name}.csv", "id,origin,tail,at,landed,y", *rows)


@pytest.fixture
def now() -> datetime:
    return datetime.fromisoformat("2013-03-08T00:30:00+00:00")


@pytest.fixture
def parts(opened: Opened, now: datetime) -> Parts:
    parts = opened(PROJECT)
    write(parts, "planes/a.csv", "tail,year", "N1,1999", "N2,2001")
    write(parts, "weather/a.csv", "origin,seen,wind", f"A,{rfc3339(now - 9 * HOUR)},1.5")
    a_day(parts, "first", now - 24 * HOUR, 1.0, count=20)
    ingest_all(parts, causes=WHY)
    return parts


def asked(at: datetime, tail: str = "N1") -> pl.DataFrame:
    schema = {"origin": pl.String, "tail": pl.String, "at": pl.Datetime("us", "UTC")}
    return pl.DataFrame({"origin": ["A"], "tail": [tail], "at": [at]}, schema=schema)


def read(parts: Parts, at: datetime, tail: str = "N1") -> dict[str, Any]:
    (features,) = deployed_features(parts)
    rows = asked(at, tail)
    online, _ = OnlineReader(parts.online, specs_of(parts, features)).join(rows, time="at", now=at)
    offline = join_offline(rows, features, {n: t.rows.collect() for n, t in published_tables(parts, features).items()})
    assert online.equals(offline)
    return online.to_dicts()[0]


def test_what_is_published_reaches_the_store(parts: Parts, now: datetime) -> None:
    assert refresh_online(parts, now) > 0
    found = read(parts, now)
    assert (found["plane.year"], found["weather.wind"], found["route.n"], found["route.mean"]) == (1999, 1.5, 20, 1.0)
    assert refresh_online(parts, now) == 0
    assert parts.online.marked(specs_of(parts, deployed_features(parts)[0])[0].table) == Mark(now, 1)


def test_history_that_is_loaded_later_corrects_it_and_live_rows_do_not(parts: Parts, now: datetime) -> None:
    refresh_online(parts, now)
    a_day(parts, "late", now - 24 * HOUR, 3.0, count=20)
    write(parts, "weather/b.csv", "origin,seen,wind", f"A,{rfc3339(now - 2 * HOUR)},2.5")
    ingest_all(parts, causes=WHY, bulk=True)
    refresh_online(parts, now)
    found = read(parts, now)
    assert (found["weather.wind"], found["route.n"], found["route.mean"]) == (2.5, 40, 2.0)
    assert read(parts, now - 3 * HOUR)["weather.wind"] == 1.5
    a_day(parts, "live", now - 24 * HOUR, 5.0, count=20)
    ingest_all(parts, causes=WHY, bulk=False)
    refresh_online(parts, now)
    assert read(parts, now)["route.n"] == 40
    assert read(parts, now - 6 * HOUR)["route.n"] == 34


def test_what_arrives_live_is_there_from_its_publishing_on(parts: Parts) -> None:
    now = parts.clock.now()
    refresh_online(parts, now)
    write(parts, "weather/b.csv", "origin,seen,wind", f"A,{rfc3339(now - HOUR)},7.5")
    ingest_all(parts, causes=WHY)
    after = parts.clock.now()
    refresh_online(parts, after)
    assert read(parts, now)["weather.wind"] is None
    assert read(parts, after)["weather.wind"] == 7.5


def test_a_restore_takes_back_what_was_fed_and_another_gives_it_again(parts: Parts, now: datetime) -> None:
    write(parts, "planes/b.csv", "tail,year", "N1,2020", "N3,2021")
    a_day(parts, "more", now - 10 * HOUR, 9.0, count=5)
    ingest_all(parts, causes=WHY, bulk=True)
    refresh_online(parts, now)
    assert (read(parts, now)["plane.year"], read(parts, now, "N3")["plane.year"], read(parts, now)["route.n"]) == (2020, 2021, 25)
    for name in ("planes@1", "flights@1"):
        restore_version(parts, name, causes=WHY)
    refresh_online(parts, now)
    assert (read(parts, now)["plane.year"], read(parts, now, "N3")["plane.year"], read(parts, now)["route.n"]) == (1999, None, 20)
    for name in ("planes@2", "flights@2"):
        restore_version(parts, name, causes=WHY)
    refresh_online(parts, now)
    assert (read(parts, now)["plane.year"], read(parts, now, "N3")["plane.year"], read(parts, now)["route.n"]) == (2020, 2021, 25)


def test_a_batch_that_is_published_while_versions_are_read_is_not_lost(parts: Parts, now: datetime) -> None:
    a_day(parts, "more", now - 10 * HOUR, 9.0, count=5)
    store, published = parts.metadata.datasets, []

    class Overtaken:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def get(self, dataset: str, version: int | None = None) -> Any:
            found = store.get(dataset, version)
            if not published:
                published.append(dataset)
                ingest_all(parts, causes=WHY, bulk=True)
            return found

    class Metadata:
        datasets = Overtaken()

    refresh_online(replace(parts, metadata=Metadata()), now)  # type: ignore[arg-type]
    refresh_online(parts, now)
    assert read(parts, now)["route.n"] == 25


def test_what_nobody_asks_for_any_more_is_deleted(parts: Parts, now: datetime) -> None:
    refresh_online(parts, now)
    table = specs_of(parts, deployed_features(parts)[0])[2].table
    at = int((instant("2013-03-07T22:00Z") - instant("1970-01-01")).total_seconds() * 1e6)
    assert parts.online.get([(table, "A", at)])[0] is not None
    refresh_online(parts, now + timedelta(days=20))
    assert parts.online.get([(table, "A", at)]) == [None]


def test_a_project_without_data_feeds_nothing(opened: Opened, now: datetime) -> None:
    assert refresh_online(opened(PROJECT, "empty"), now) == 0
