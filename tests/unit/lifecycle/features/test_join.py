"""What the join does at its edges: spans, ties, many ticks, freshness, and changed definitions."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mulle.adapters.online.lmdb import LmdbOnline
from mulle.core.clock import instant
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.features import Features, asof, features, history, lookup
from mulle.core.declare.sources import Files
from mulle.core.errors import DataError, DeclarationError
from mulle.core.ports.online import Mark
from mulle.kernel.dtypes import schema_text
from mulle.lifecycle.features import windows
from mulle.lifecycle.features.join import join_offline, join_specs
from mulle.lifecycle.features.materialise import materialise, trim
from mulle.lifecycle.features.read import OnlineReader

T0 = instant("2013-03-01T00:00:00Z")
HOUR = timedelta(hours=1)
US = pl.Datetime("us", "UTC")
trips = Dataset("trips", Files("t"), key="id", time="at", known_at="done", outcome="y")
weather = Dataset("weather", Files("w"), key="place", time="seen")


def shaped(**joins: object) -> Features:
    @features(trips, **joins)  # type: ignore[arg-type]
    def made(rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows

    return made


def trip(*hours: float, place: str = "a", lasts: float = 0.5) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": range(len(hours)),
            "place": [place] * len(hours),
            "at": [T0 + h * HOUR for h in hours],
            "done": [T0 + (h + lasts) * HOUR for h in hours],
            "y": [float(h) for h in hours],
        },
        schema={"id": pl.Int64, "place": pl.String, "at": US, "done": US, "y": pl.Float64},
    )


ROUTE = {"route": history(trips, on="place", window="2h", every="1h", y=pl.col("y").sum(), n=pl.len())}


def test_a_history_counts_what_was_done_in_the_window_before_the_tick() -> None:
    past = trip(0, 0.5, 1.5, 2.5)  # done at 0:30, 1:00, 2:00, 3:00
    asked = trip(0.9, 1.0, 1.99, 2.0, 3.0, 5.5)
    found = join_offline(asked, shaped(**ROUTE), {"trips": past})
    assert found["route.n"].to_list() == [None, 2, 2, 3, 2, None]
    assert found["route.y"].to_list() == [None, 0.5, 0.5, 2.0, 4.0, None]
    assert found.height == asked.height


def test_as_of_takes_the_latest_within_its_span_inclusively() -> None:
    seen = pl.DataFrame({"place": ["a", "a"], "seen": [T0, T0 + HOUR], "wind": [1.0, 2.0]}).with_columns(pl.col("seen").cast(US))
    asked = trip(0, 0.9, 1, 3, 3.01)
    found = join_offline(asked, shaped(w=asof(weather, on="place", within="2h")), {"weather": seen})
    assert found["w.wind"].to_list() == [1.0, 1.0, 2.0, 2.0, None]


def test_a_lookup_on_a_table_with_time_does_not_see_the_future() -> None:
    seen = pl.DataFrame({"place": ["a", "a"], "seen": [T0, T0 + HOUR], "wind": [1.0, 2.0]}).with_columns(pl.col("seen").cast(US))
    found = join_offline(trip(-1, 0.5, 100), shaped(w=lookup(weather, on="place")), {"weather": seen})
    assert found["w.wind"].to_list() == [None, 1.0, 2.0]


@pytest.mark.parametrize(("every", "window"), [("1h", "6h"), ("1h", "90m"), ("25m", "10m"), ("2h", "1d")])
def test_many_ticks_at_once_and_few_give_the_same(every: str, window: str, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(7)
    monkeypatch.setattr(windows, "_CHUNK", 10)
    past = pl.concat([trip(*random.uniform(-40, 40, 60), place=p, lasts=float(random.uniform(0, 3))) for p in "abc"])
    asked = pl.concat([trip(*random.uniform(-50, 60, 200), place=p) for p in "abcd"])
    values = {"n": pl.len(), "mean": pl.col("y").mean(), "top": (pl.col("y") * 2).max(), "std": pl.col("y").std()}
    f = shaped(route=history(trips, on="place", window=window, every=every, **values))
    monkeypatch.setattr(
        windows, "_aggregate", lambda r, w, j, v, revised: windows._spread(r, windows._ranges(r, w, _us(j.window)), v)
    )
    few = join_offline(asked, f, {"trips": past})
    monkeypatch.setattr(windows, "_aggregate", lambda r, w, j, v, revised: windows._sliding(r, w, v, _us(j.window), _us(j.every)))
    many = join_offline(asked, f, {"trips": past})
    assert few["route.n"].sum() > 40
    for name in ("n", "mean", "top", "std"):
        a, b = few[f"route.{name}"], many[f"route.{name}"]
        assert (a.is_null() == b.is_null()).all()
        np.testing.assert_allclose(a.drop_nulls(), b.drop_nulls(), atol=1e-9)


def _us(span: timedelta) -> int:
    return span // timedelta(microseconds=1)


def test_serving_tells_how_fresh_a_value_is_and_uses_no_stale_one(tmp_path: Path) -> None:
    seen = pl.DataFrame({"place": ["a"], "seen": [T0], "wind": [1.0]}).with_columns(pl.col("seen").cast(US))
    past = trip(0, 0.5)
    f = shaped(w=asof(weather, on="place", within="2h"), **ROUTE)
    tables = {"weather": seen, "trips": past}
    specs = join_specs(f, {n: schema_text(t) for n, t in tables.items()})
    online = LmdbOnline(tmp_path)
    assert materialise(f, tables, specs, online, since=None, until=T0 + 2 * HOUR) == {"w": 1, "route": 2}
    assert online.marked(specs[0].table) == Mark(T0 + 2 * HOUR)
    asked = trip(1.5, 2.5, 7.0).drop("done", "y")
    found, fresh = OnlineReader(online, specs).join(asked, time="at", now=T0)
    assert found["w.wind"].to_list() == [1.0, None, None]
    assert found["route.n"].to_list() == [2, 2, None]
    last = {"w": "2013-03-01T00:00:00Z", "route": "2013-03-01T02:00:00Z"}
    assert fresh == [{"w": "2013-03-01T00:00:00Z", "route": "2013-03-01T01:00:00Z"}, last, last]
    materialise(f, tables, specs, online, since=None, until=T0 + timedelta(days=30))
    assert trim(specs, online, until=T0 + timedelta(days=30)) > 0
    online.close()


def test_a_row_without_time_is_read_as_of_now(tmp_path: Path) -> None:
    f = shaped(**ROUTE)
    specs = join_specs(f, {"trips": schema_text(trip(0))})
    online = LmdbOnline(tmp_path)
    materialise(f, {"trips": trip(0)}, specs, online, since=None, until=T0 + 3 * HOUR)
    asked = trip(0, 0).with_columns(at=pl.lit(None, dtype=US))
    assert OnlineReader(online, specs).join(asked, time="at", now=T0 + HOUR)[0]["route.n"].to_list() == [1, 1]
    assert OnlineReader(online, specs).join(asked, time=None, now=T0 + 3 * HOUR)[0]["route.n"].to_list() == [None, None]
    online.close()


def test_a_changed_definition_is_another_table() -> None:
    schema = {"trips": schema_text(trip(0))}
    other = {"route": history(trips, on="place", window="3h", every="1h", y=pl.col("y").sum(), n=pl.len())}
    first, again, changed = (join_specs(shaped(**j), schema)[0] for j in (ROUTE, ROUTE, other))
    assert first == again
    assert first.table != changed.table
    assert first.columns == {"y": "Float64", "n": "UInt32"}


def test_a_history_of_an_unknown_column_is_refused() -> None:
    f = shaped(route=history(trips, on="place", window="2h", every="1h", y=pl.col("nope").sum()))
    with pytest.raises(DeclarationError, match="nope"):
        join_specs(f, {"trips": schema_text(trip(0))})
    with pytest.raises(DataError, match="no rows of dataset 'trips'"):
        join_offline(trip(0), f, {})


@pytest.mark.parametrize("late", [True, False])
def test_a_key_means_the_same_as_a_number_a_text_or_in_parts(late: bool) -> None:
    random = np.random.default_rng(5)

    def keyed(rows: int, columns: dict[str, pl.Series]) -> pl.DataFrame:
        number = pl.Series(np.where(random.random(rows) < 0.7, 3, random.integers(0, 50, rows)))
        number = number.zip_with(pl.Series(random.random(rows) > 0.02), pl.Series([None], dtype=pl.Int64))
        return pl.DataFrame({"number": number} | columns).with_columns(
            text=pl.format("é{}", "number"), part=pl.col("number") // 7, rest=(pl.col("number") % 7).cast(pl.String)
        )

    def instants(rows: int, step: int) -> pl.Series:
        return pl.Series(random.integers(-3000, 3000, rows) * step * 1_000_000).cast(US)

    seen = instants(20_000, 60)  # three and more rows at each instant, half of them before the epoch
    known = seen + pl.Series(random.integers(0, 7200 if late else 1, 20_000) * 1_000_000).cast(pl.Duration("us"))
    past = keyed(20_000, {"seen": seen, "known": known, "v": pl.Series(random.integers(0, 10**6, 20_000))})
    past = past.unique(["number", "seen"], keep="any", maintain_order=True).sample(fraction=1, shuffle=True, seed=2)
    rows = keyed(5_000, {"at": instants(5_000, 61)}).with_row_index("id")
    asked = Dataset("asked", Files("a"), key="id", time="at")
    found = []
    for key in ("number", "text", ["part", "rest"]):
        events = Dataset("events", Files("e"), key=key, time="seen", known_at="known")
        route = history(events, on=key, window="2h", every="1h", n=pl.len(), top=pl.col("v").max(), end=pl.col("v").last())

        @features(asked, w=asof(events, on=key, within="3h"), route=route)
        def made(rows: pl.LazyFrame) -> pl.LazyFrame:
            return rows

        found.append(
            join_offline(rows, made, {"events": past}).select("id", "w.v", "w.seen", "route.n", "route.top", "route.end")
        )
    assert found[0].equals(found[1])
    assert found[0].equals(found[2])
    ages = (rows["at"] - found[0]["w.seen"]).drop_nulls()
    assert len(ages) > 3_000
    assert timedelta(0) <= ages.min() <= ages.max() <= timedelta(hours=3)  # type: ignore[operator]
    never = rows.filter(pl.col("number").is_null())["id"]
    assert found[0].filter(pl.col("id").is_in(never.implode()))["w.v"].null_count() == len(never) > 50


@pytest.mark.parametrize("known_at", [None, "known"])
def test_a_row_that_is_known_at_the_very_moment_is_read_and_a_later_one_is_not(known_at: str | None) -> None:
    moments = [T0 - HOUR, T0, T0 + timedelta(microseconds=1)]
    table = pl.DataFrame({"place": ["a"] * 3, "seen": moments, "known": moments, "wind": [1.0, 2.0, 3.0]})
    table = table.with_columns(pl.col("seen", "known").cast(US))
    sky = Dataset("sky", Files("s"), key="place", time="seen", known_at=known_at)
    asked = pl.DataFrame({"id": [1], "at": [T0], "place": ["a"]}).with_columns(pl.col("at").cast(US))
    route = history(sky, on="place", window="2h", every="1h", total=pl.col("wind").sum())

    @features(trips, w=asof(sky, on="place", within="1d"), h=route)
    def made(rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows

    for given in (table, table.lazy()):
        found = join_offline(asked, made, {"sky": given})
        assert (found["w.wind"].item(), found["h.total"].item()) == (2.0, 3.0)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (pl.col("y"), r'col\("y"\) gives List\(Float64\) for each key'),
        (pl.col("y").sum() + pl.col("y"), r"gives List\(Float64\) for each key"),
        (pl.struct("y").first(), "gives Struct"),
        (pl.col("place").mean(), "`mean` operation not supported"),
    ],
)
def test_a_history_that_does_not_aggregate_is_refused_by_join_and_value(value: pl.Expr, said: str) -> None:
    f = shaped(route=history(trips, on="place", window="2h", every="1h", n=pl.len(), odd=value))
    with pytest.raises(DeclarationError, match=f"history 'route', value 'odd': .*{said}"):
        join_specs(f, {"trips": schema_text(trip(0))})
    with pytest.raises(DeclarationError, match=f"history 'route', value 'odd': .*{said}"):
        join_offline(trip(0, 5), f, {"trips": trip(0, 1, 2)})


def test_a_history_that_some_rows_break_is_refused_by_join() -> None:
    f = shaped(route=history(trips, on="place", window="2h", every="1h", odd=pl.col("place").str.to_integer().max()))
    with pytest.raises(DataError, match="join 'route' of dataset trips: "):
        join_offline(trip(5), f, {"trips": trip(2, 3)})


def test_a_lookup_brings_columns_that_begin_with_an_underscore_but_no_bookkeeping() -> None:
    sites = Dataset("sites", Files("s"), key="_id")
    table = pl.DataFrame({"_id": ["a"], "_score": [7.0], "_ingested_at": [T0], "_batch": ["b"], "_version": [1], "_live": [True]})
    f = shaped(site=lookup(sites, on={"place": "_id"}))
    found = join_offline(trip(0), f, {"sites": table})
    assert [c for c in found.columns if c.startswith("site.")] == ["site._score"]
    assert found["site._score"].to_list() == [7.0]
    assert join_specs(f, {"sites": schema_text(table)})[0].columns == {"_score": "Float64"}
