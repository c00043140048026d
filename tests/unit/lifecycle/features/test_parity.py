"""What training joins offline is what serving reads online, and both are what the words of the design say."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulle.adapters.online.lmdb import LmdbOnline
from mulle.core.clock import instant
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.features import Features, asof, features, history, lookup
from mulle.core.declare.sources import Files
from mulle.kernel.dtypes import schema_text
from mulle.lifecycle.features.join import join_offline, join_specs
from mulle.lifecycle.features.materialise import materialise
from mulle.lifecycle.features.read import OnlineReader

START = instant("2013-01-01T00:30:00Z")
MINUTE = timedelta(minutes=1)
UTC_US = pl.Datetime("us", "UTC")

flights = Dataset("flights", Files("f"), key="id", time="at", known_at="landed", outcome=["y"])
weather = Dataset("weather", Files("w"), key="origin", time="seen")
planes = Dataset("planes", Files("p"), key="tail")


def declared(every: str = "1h", window: str = "3h", within: str = "2h") -> Features:
    @features(
        flights,
        weather=asof(weather, on="origin", within=within),
        plane=lookup(planes, on="tail"),
        route=history(
            flights,
            on=["origin", "dest"],
            window=window,
            every=every,
            mean=pl.col("y").mean(),
            n=pl.len(),
            last=pl.col("at").max(),
        ),
    )
    def made(rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows

    return made


minute = st.integers(0, 600)
origin = st.sampled_from(["A", "B|", None])


@st.composite
def flight_rows(draw: Any) -> pl.DataFrame:
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, 8), origin, st.sampled_from(["X", "Y"]), minute, st.one_of(st.none(), minute), minute,
                      st.one_of(st.none(), st.floats(-100, 100)), st.sampled_from(["N1", "N2", "N3", None])),
            min_size=1, max_size=14,
        )
    )  # fmt: skip
    return pl.DataFrame(
        {
            "id": [r[0] for r in rows],
            "origin": [r[1] for r in rows],
            "dest": [r[2] for r in rows],
            "at": [START + r[3] * MINUTE for r in rows],
            "landed": [None if r[4] is None else START + r[4] * MINUTE for r in rows],
            "_ingested_at": [START + (r[5] if i % 2 else r[3]) * MINUTE + timedelta(seconds=i) for i, r in enumerate(rows)],
            "y": [r[6] for r in rows],
            "tail": [r[7] for r in rows],
        },
        schema={"id": pl.Int64, "origin": pl.String, "dest": pl.String, "at": UTC_US, "landed": UTC_US,
                "_ingested_at": UTC_US, "y": pl.Float64, "tail": pl.String},
    )  # fmt: skip


@st.composite
def weather_rows(draw: Any) -> pl.DataFrame:
    rows = draw(st.lists(st.tuples(origin, minute, minute, st.one_of(st.none(), st.floats(0, 50))), max_size=12))
    return pl.DataFrame(
        {
            "origin": [r[0] for r in rows],
            "seen": [START + r[1] * MINUTE for r in rows],
            "_ingested_at": [START + r[2] * MINUTE + timedelta(seconds=i) for i, r in enumerate(rows)],
            "wind": [r[3] for r in rows],
        },
        schema={"origin": pl.String, "seen": UTC_US, "_ingested_at": UTC_US, "wind": pl.Float64},
    )


PLANES = pl.DataFrame({"tail": ["N1", "N2"], "year": [1999, None], "built": [instant("1999-05-01").date(), None]})


def reference(rows: pl.DataFrame, f: Features, tables: dict[str, pl.DataFrame], bulk: bool) -> list[dict[str, Any]]:
    """Row by row, version by version, in the design's words."""
    joins: dict[str, Any] = dict(f.joins)
    answers = []
    for row in rows.to_dicts():
        t, answer = row["at"], {}
        seen = [r for r in known(tables["weather"], "seen", "seen", ["origin"], t, bulk) if r["origin"] == row["origin"]]
        seen = [r for r in seen if r["seen"] <= t and row["origin"] is not None]
        best = max(seen, key=lambda r: r["seen"], default=None)
        fresh = best is not None and t - best["seen"] <= joins["weather"].within
        answer["weather.wind"] = best["wind"] if best and fresh else None
        answer["weather.seen"] = best["seen"] if best and fresh else None
        plane = next((p for p in tables["planes"].to_dicts() if p["tail"] == row["tail"]), {})
        answer["plane.year"], answer["plane.built"] = plane.get("year"), plane.get("built")
        every, window = joins["route"].every, joins["route"].window
        tick = instant("1970-01-01") + ((t - instant("1970-01-01")) // every) * every
        past = [
            r for r in known(tables["flights"], "landed", "at", ["id"], tick, bulk)
            if r["_known"] > tick - window and row["origin"] is not None
            and (r["origin"], r["dest"]) == (row["origin"], row["dest"])
        ]  # fmt: skip
        values = [r["y"] for r in past if r["y"] is not None]
        answer["route.mean"] = sum(values) / len(values) if values else None
        answer["route.n"] = len(past) or None
        answer["route.last"] = max((r["at"] for r in past), default=None)
        answers.append(answer)
    return answers


def known(table: pl.DataFrame, available: str, time: str, key: list[str], t: Any, bulk: bool) -> list[dict[str, Any]]:
    """The rows known at t, of each the version that was taken in last."""
    latest: dict[Any, dict[str, Any]] = {}
    for i, r in enumerate(sorted(table.to_dicts(), key=lambda r: r["_ingested_at"])):
        if r[available] is None:
            continue
        r["_known"] = r[available] if bulk else max(r[available], r["_ingested_at"])
        if r["_known"] <= t:
            identity = (tuple(r[k] for k in key), r[time])
            latest[i if None in identity[0] else identity] = r
    return list(latest.values())


def arriving(tables: dict[str, pl.DataFrame], *, live: bool) -> dict[str, pl.DataFrame]:
    """Mark the rows of tables with time: live ones are available from their publishing at the earliest."""
    return {n: t.with_columns(_live=pl.lit(live)) if "_ingested_at" in t.columns else t for n, t in tables.items()}


def assert_same(found: pl.DataFrame, expected: list[dict[str, Any]]) -> None:
    for index, answer in enumerate(expected):
        for name, value in answer.items():
            have = found[name][index]
            if isinstance(value, float) and have is not None:
                assert have == pytest.approx(value, abs=1e-9), (index, name)
            else:
                assert have == value, (index, name)


@settings(max_examples=60, deadline=None)
@given(flight_rows(), weather_rows(), st.booleans(), st.sampled_from(["1h", "25m"]), st.sampled_from(["3h", "70m", "10m"]))
def test_the_join_is_what_the_design_says(past: pl.DataFrame, seen: pl.DataFrame, bulk: bool, every: str, window: str) -> None:
    f = declared(every, window)
    tables = arriving({"flights": past, "weather": seen, "planes": PLANES}, live=not bulk)
    assert_same(join_offline(past, f, tables), reference(past, f, tables, bulk))


@settings(max_examples=60, deadline=None)
@given(flight_rows(), weather_rows(), st.lists(st.integers(0, 1300), min_size=1, max_size=5))
def test_online_gives_what_offline_gives(past: pl.DataFrame, seen: pl.DataFrame, steps: list[int]) -> None:
    f = declared()
    tables = arriving({"flights": past, "weather": seen, "planes": PLANES}, live=True)
    specs = join_specs(f, {n: schema_text(t) for n, t in tables.items()})
    offline = join_offline(past, f, tables)
    with tempfile.TemporaryDirectory() as folder:
        online = LmdbOnline(folder)
        for step in [*sorted(steps), 1300]:
            until = START + step * MINUTE
            here = {n: t.filter(pl.col("_ingested_at") <= until) if "_ingested_at" in t.columns else t for n, t in tables.items()}
            materialise(f, here, specs, online, until=until)
        joined, _ = OnlineReader(online, specs).join(past, time="at", now=START)
        online.close()
    assert joined.columns == offline.columns
    assert joined.schema == offline.schema
    assert_same(joined, offline.select(c for c in offline.columns if "." in c).to_dicts())


@settings(max_examples=40, deadline=None)
@given(flight_rows(), weather_rows(), minute, st.booleans())
def test_the_future_cannot_be_seen(past: pl.DataFrame, seen: pl.DataFrame, cut: int, bulk: bool) -> None:
    f = declared()
    moment = START + cut * MINUTE
    asked = past.filter(pl.col("at") <= moment)

    def altered(table: pl.DataFrame, available: str, value: str) -> pl.DataFrame:
        when = pl.col(available) if bulk else pl.max_horizontal(available, "_ingested_at")
        later = when > moment
        return table.with_columns(pl.when(later).then(-999.0).otherwise(pl.col(value)).alias(value)).reverse()

    before = {"flights": past, "weather": seen, "planes": PLANES}
    after = {"flights": altered(past, "landed", "y"), "weather": altered(seen, "seen", "wind"), "planes": PLANES}
    names = [f"{j}.{c}" for j, c in (("weather", "wind"), ("route", "mean"), ("route", "n"))]
    have = join_offline(asked, f, arriving(before, live=not bulk)).select(names)
    assert_same(join_offline(asked, f, arriving(after, live=not bulk)), have.to_dicts())
