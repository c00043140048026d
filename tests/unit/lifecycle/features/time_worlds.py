"""Random tables with all that time can do to rows, and a slow, obvious reading of docs/guides/time.md to hold joins to."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import strategies as st

from mulle.core.clock import EPOCH, instant
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.features import AsOf, Features, History, Lookup, asof, features, history, lookup
from mulle.core.declare.sources import Files

Row = dict[str, Any]
Tables = dict[str, pl.DataFrame]

MINUTE = timedelta(minutes=1)
UTC_US = pl.Datetime("us", "UTC")
# Before the epoch; the hours in which Berlin's clocks jump ahead, and back; an hour that New York has twice.
BASES = [instant(t) for t in ("1969-12-31T21:30Z", "2013-03-31T00:00Z", "2013-10-27T00:00Z", "2013-11-03T04:30Z")]
SPAN = 300

asked = Dataset("asked", Files("a"), key="id", time="at")
events = Dataset("events", Files("e"), key=["place", "number"], time="seen", known_at="known")
areas = Dataset("areas", Files("r"), key="place", time="seen")
sites = Dataset("sites", Files("s"), key="place")
BROUGHT = {"events": ["seen", "known", "v", "kind"], "areas": ["seen", "v", "kind"], "sites": ["region"]}


def declared(within: str, window: str, every: str) -> Features:
    @features(
        asked,
        w=asof(events, on={"n": "number", "p": "place"}, within=within),
        last=lookup(events, on=["p", "n"]),
        site=lookup(sites, on="p"),
        near=asof(areas, on="site.region", within=within),
        beyond=lookup(sites, on="near.kind"),
        past=history(
            events, on={"p": "place"}, window=window, every=every,
            n=pl.len(), sum=pl.col("v").sum(), top=pl.col("v").max(), first=pl.col("v").first(), end=pl.col("v").last(),
        ),
        route=history(events, on={"n": "number", "p": "place"}, window=window, every=every, n=pl.len()),
        around=history(events, on={"beyond.region": "place"}, window=window, every=every, n=pl.len()),
    )  # fmt: skip
    def made(rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows

    return made


# The reference ------------------------------------------------------------------------------------------------------


def rank(value: Any) -> tuple[int, Any]:
    """Order as sorting does: null, then values, then NaN."""
    return (0, 0) if value is None else (2, 0) if isinstance(value, float) and math.isnan(value) else (1, value)


def available(row: Row, dataset: Dataset) -> datetime | None:
    known = row[dataset.available or ""]
    if row.get("_live"):
        ingested = row.get("_ingested_at")
        return None if known is None or ingested is None else max(known, ingested)
    return known  # type: ignore[no-any-return]


def held(table: list[Row], dataset: Dataset, moment: datetime, content: list[str]) -> list[Row]:
    """The rows known at a moment; of those with one identity, the one ingested last."""

    def order(row: Row) -> list[Any]:
        told = [row.get("_ingested_at"), row.get("_batch"), available(row, dataset), *(row[c] for c in sorted(content))]
        return [rank(v) for v in told]

    known = [
        r
        for r in table
        if r[dataset.time or ""] is not None and (available(r, dataset) or datetime.max.replace(tzinfo=EPOCH.tzinfo)) <= moment
    ]
    latest: dict[Any, Row] = {}
    for i, row in enumerate(sorted(known, key=order)):
        name = tuple(row[c] for c in dataset.identity)
        latest[(i,) if None in name or not name else name] = row
    return list(latest.values())


def as_of(table: list[Row], join: AsOf | Lookup, key: tuple[Any, ...], moment: datetime) -> Row | None:
    dataset, time = join.dataset, join.dataset.time or ""
    rows = held(table, dataset, moment, BROUGHT[dataset.name])
    mine = [r for r in rows if tuple(r[c] for c in dataset.key) == key and r[time] <= moment]
    best = max(mine, key=lambda r: r[time], default=None)
    if best is not None and isinstance(join, AsOf) and moment - best[time] > join.within:
        return None
    return best


def current(table: list[Row], join: Lookup, key: tuple[Any, ...]) -> Row | None:
    mine = [r for r in table if tuple(r[c] for c in join.dataset.key) == key]
    told = ["_ingested_at", "_batch", *sorted(BROUGHT[join.dataset.name])]
    return max(mine, key=lambda r: [rank(r.get(c)) for c in told], default=None)


def aggregated(table: list[Row], join: History, key: tuple[Any, ...], moment: datetime) -> Row | None:
    tick = EPOCH + ((moment - EPOCH) // join.every) * join.every
    rows = held(table, join.dataset, tick, ["v"] if dict(join.values).keys() != {"n"} else [])
    mine = [
        r for r in rows
        if tuple(r[c] for c in join.by) == key and tick - join.window < (available(r, join.dataset) or tick) <= tick
    ]  # fmt: skip
    if not mine:
        return None
    told = [join.dataset.time or "", *join.dataset.key, "v"]
    mine.sort(key=lambda r: [rank(available(r, join.dataset)), *(rank(r[c]) for c in told)])
    values = [r["v"] for r in mine]
    some = [v for v in values if v is not None]
    numbers = [v for v in some if not math.isnan(v)]
    top = max(numbers, default=math.nan if some else None)
    return {"n": len(mine), "sum": sum(some), "top": top, "first": values[0], "end": values[-1]}


def reference(rows: pl.DataFrame, declared: Features, tables: Tables) -> list[Row]:
    told = {name: utc(table).to_dicts() for name, table in tables.items()}
    answers = []
    for row in utc(rows).to_dicts():
        answer: Row = {}
        for name, join in declared.joins:
            table, key = told[join.dataset.name], tuple((row | answer)[c] for c in join.on)
            found: Row | None = None
            if None not in key and isinstance(join, Lookup) and join.dataset.time is None:
                found = current(table, join, key)
            elif None not in key and row["at"] is not None:
                found = (aggregated if isinstance(join, History) else as_of)(table, join, key, row["at"])  # type: ignore[operator]
            names = dict(join.values) if isinstance(join, History) else BROUGHT[join.dataset.name]
            answer |= {f"{name}.{c}": finite((found or {}).get(c)) for c in names}
        answers.append(answer)
    return answers


def finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def utc(table: pl.DataFrame) -> pl.DataFrame:
    return table.with_columns(pl.col(pl.Datetime).cast(UTC_US))


def assert_same(found: pl.DataFrame, expected: list[Row]) -> None:
    assert found.height == len(expected)
    for have, want in zip(found.to_dicts(), expected, strict=True):
        for name, value in want.items():
            if isinstance(value, float) and have[name] is not None:
                assert have[name] == pytest.approx(value, abs=1e-6), name
            else:
                assert have[name] == value, name


# The rows -----------------------------------------------------------------------------------------------------------

place, number = st.sampled_from(["A", "B|", "C", None]), st.sampled_from([1, 2, None])
minute = st.integers(-SPAN, SPAN)
maybe = st.one_of(st.none(), minute, minute)
value = st.one_of(st.none(), st.integers(-9, 9).map(float), st.sampled_from([math.nan, math.inf, -0.0, 0.25]))
zone = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", None])
unit = st.sampled_from(["us", "ms", "ns"])
delay = st.one_of(st.none(), st.sampled_from([0, 0, 1, 30, -20, 90]))


def at(base: datetime, minutes: int | None) -> datetime | None:
    return None if minutes is None else base + minutes * MINUTE


def after(minutes: int | None, delay: int | None) -> int | None:
    return None if minutes is None or delay is None else minutes + delay


def placed(table: pl.DataFrame, zone: str | None, unit: Any) -> pl.DataFrame:
    """The same instants, as a file would have them: in a zone, or without one, in some unit."""
    for name, dtype in table.schema.items():
        if isinstance(dtype, pl.Datetime) and not name.startswith("_"):
            column = pl.col(name).dt.convert_time_zone(zone) if zone else pl.col(name).dt.replace_time_zone(None)
            table = table.with_columns(column.dt.cast_time_unit(unit))
    return table


@st.composite
def table_rows(draw: Any, base: datetime, *, most: int = 14) -> pl.DataFrame:
    one = st.tuples(place, number, maybe, delay, delay, st.sampled_from([True, False, None]), st.sampled_from("ab"), value, place)
    rows = draw(st.lists(one, max_size=most))
    rows += [(*r[:3], draw(delay), draw(delay), *r[5:7], draw(value), draw(place)) for r in rows if draw(st.booleans())]
    rows = draw(st.permutations(rows))
    return pl.DataFrame(
        {
            "place": [r[0] for r in rows],
            "number": [r[1] for r in rows],
            "seen": [at(base, r[2]) for r in rows],
            "known": [at(base, after(r[2], r[3])) for r in rows],
            "_ingested_at": [at(base, after(r[2], r[4])) for r in rows],
            "_live": [r[5] for r in rows],
            "_batch": [r[6] for r in rows],
            "v": [r[7] for r in rows],
            "kind": [r[8] for r in rows],
        },
        schema={"place": pl.String, "number": pl.Int64, "seen": UTC_US, "known": UTC_US, "_ingested_at": UTC_US,
                "_live": pl.Boolean, "_batch": pl.String, "v": pl.Float64, "kind": pl.String},
    )  # fmt: skip


@st.composite
def worlds(draw: Any) -> tuple[pl.DataFrame, Tables]:
    base = draw(st.sampled_from(BASES))
    wanted = draw(st.lists(st.tuples(place, number, maybe), min_size=1, max_size=12))
    rows = pl.DataFrame(
        {
            "id": range(len(wanted)),
            "p": [w[0] for w in wanted],
            "n": [w[1] for w in wanted],
            "at": [at(base, w[2]) for w in wanted],
        },
        schema={"id": pl.Int64, "p": pl.String, "n": draw(st.sampled_from([pl.Int64, pl.Int16, pl.Float64])), "at": UTC_US},
    )
    known = draw(table_rows(base))
    if draw(st.booleans()):
        known = known.drop("_live")
    near = draw(table_rows(base)).drop("number", "known")
    named = draw(st.lists(st.tuples(place, place, minute), max_size=6))
    some = pl.DataFrame(
        {"place": [s[0] for s in named], "region": [s[1] for s in named], "_ingested_at": [at(base, s[2]) for s in named]},
        schema={"place": pl.String, "region": pl.String, "_ingested_at": UTC_US},
    )
    tables = {"events": placed(known, draw(zone), draw(unit)), "areas": placed(near, draw(zone), draw(unit)), "sites": some}
    return placed(rows, draw(zone), draw(unit)), tables
