"""The join against a slow, obvious reading of docs/guides/time.md: row by row, version by version, in plain Python."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulle.core.clock import EPOCH, instant
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.features import AsOf, Features, History, Lookup, asof, features, history, lookup
from mulle.core.declare.sources import Files
from mulle.lifecycle.features import windows
from mulle.lifecycle.features.join import join_offline

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


def at_once(*choices: Sequence[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    """One of each by a single draw: with a draw per cell, rows take longer to think up than to join."""
    return st.sampled_from(list(product(*choices)))


PLACES: list[Any] = ["A", "B|", "C", None]
MINUTES = [*sorted(range(-SPAN, SPAN + 1), key=abs), *[None] * SPAN]
DELAYS = [*[None] * 6, 0, 0, 1, 30, -20, 90]
VALUES = [*[None] * 19, *map(float, range(-9, 10)), *[math.nan, math.inf, -0.0, 0.25] * 5]
named = at_once(PLACES, [1, 2, None], MINUTES)
told = at_once(DELAYS, DELAYS, [True, False, None], "ab")
held_in = at_once(VALUES, PLACES)
place, minute = st.sampled_from(PLACES), st.integers(-SPAN, SPAN)
zone = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", None])
unit = st.sampled_from(["us", "ms", "ns"])


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
    rows = draw(st.lists(st.tuples(named, told, held_in).map(lambda of: (*of[0], *of[1], *of[2])), max_size=most))
    rows += [(*r[:3], *draw(told)[:2], *r[5:7], *draw(held_in)) for r in rows if draw(st.booleans())]
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
    wanted = draw(st.lists(named, min_size=1, max_size=12))
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
    regions = draw(st.lists(st.tuples(place, place, minute), max_size=6))
    some = pl.DataFrame(
        {"place": [s[0] for s in regions], "region": [s[1] for s in regions], "_ingested_at": [at(base, s[2]) for s in regions]},
        schema={"place": pl.String, "region": pl.String, "_ingested_at": UTC_US},
    )
    tables = {"events": placed(known, draw(zone), draw(unit)), "areas": placed(near, draw(zone), draw(unit)), "sites": some}
    return placed(rows, draw(zone), draw(unit)), tables


spans = st.tuples(
    st.sampled_from(["30m", "3h", "0s"]), st.sampled_from(["3h", "70m", "10m", "1m"]), st.sampled_from(["1h", "25m", "1d"])
)


@settings(max_examples=120, deadline=None)
@given(worlds(), spans, st.booleans())
def test_the_join_is_what_the_page_says(
    world: tuple[pl.DataFrame, Tables], given_spans: tuple[str, str, str], lazy: bool
) -> None:
    rows, tables = world
    made = declared(*given_spans)
    found = join_offline(rows, made, {n: t.lazy() for n, t in tables.items()} if lazy else tables)
    assert found.select(rows.columns).equals(rows)
    assert_same(found, reference(rows, made, tables))


@settings(max_examples=60, deadline=None)
@given(worlds(), spans)
def test_every_way_to_aggregate_gives_that(world: tuple[pl.DataFrame, Tables], given_spans: tuple[str, str, str]) -> None:
    rows, tables = world
    made = declared(*given_spans)

    def sliding(some: pl.DataFrame, wanted: pl.DataFrame, join: History, values: list[pl.Expr], *, revised: bool) -> pl.DataFrame:
        window, every = (span // timedelta(microseconds=1) for span in (join.window, join.every))
        if revised:
            return windows._spread(some, windows._ranges(some, wanted, window), values)
        return windows._sliding(some, wanted, values, window, every)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "_aggregate", sliding)
        patch.setattr(windows, "_CHUNK", 3)
        assert_same(join_offline(rows, made, tables), reference(rows, made, tables))


@settings(max_examples=30, deadline=None)
@given(worlds(), st.randoms())
def test_the_order_of_rows_means_nothing(world: tuple[pl.DataFrame, Tables], random: Any) -> None:
    rows, tables = world
    made = declared("3h", "3h", "25m")

    def mixed(table: pl.DataFrame) -> pl.DataFrame:
        return table[random.sample(range(table.height), table.height)]

    asked_again = mixed(rows)
    found = join_offline(asked_again, made, {n: mixed(t) for n, t in tables.items()}).sort("id")
    assert found.equals(join_offline(rows, made, tables).sort("id"))


@settings(max_examples=30, deadline=None)
@given(worlds())
def test_a_row_gets_the_same_alone_as_among_others(world: tuple[pl.DataFrame, Tables]) -> None:
    rows, tables = world
    made = declared("3h", "70m", "25m")
    whole = join_offline(rows, made, tables)
    assert pl.concat([join_offline(rows[i : i + 1], made, tables) for i in range(rows.height)]).equals(whole)


@settings(max_examples=60, deadline=None)
@given(worlds(), st.integers(-SPAN, SPAN), st.data())
def test_what_is_not_known_yet_changes_nothing(world: tuple[pl.DataFrame, Tables], cut: int, data: Any) -> None:
    rows, tables = world
    made = declared("3h", "3h", "25m")
    whole = utc(rows)["at"].drop_nulls()
    moment = (whole.min() or BASES[0]) + abs(cut) * MINUTE  # type: ignore[operator]
    rows = rows.filter(utc(rows)["at"] <= moment)

    def changed(table: pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
        known = [available(r, dataset) for r in utc(table).to_dicts()]
        later = [k is None or k > moment for k in known]
        kept = [i for i, late in enumerate(later) if not late or data.draw(st.booleans())]
        other = pl.Series(
            [data.draw(place) if late else p for p, late in zip(table["place"], later, strict=True)], dtype=pl.String
        )
        shifted = table.with_columns(
            other.alias("place"),
            pl.when(pl.Series(later, dtype=pl.Boolean)).then(-777.0).otherwise("v").alias("v"),
            pl.when(pl.Series(later, dtype=pl.Boolean)).then(pl.lit("D")).otherwise("kind").alias("kind"),
        )
        if dataset.known_at:
            moved = pl.col("seen") + data.draw(st.sampled_from([timedelta(0), -3 * MINUTE, timedelta(hours=1)]))
            shifted = shifted.with_columns(
                pl.when(pl.Series(later, dtype=pl.Boolean)).then(moved).otherwise("seen").alias("seen")
            )
        return shifted[kept]

    future = tables | {"events": changed(tables["events"], events), "areas": changed(tables["areas"], areas)}
    assert join_offline(rows, made, future).equals(join_offline(rows, made, tables))


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("late", [True, False])
def test_it_holds_of_many_rows_most_of_one_key_and_few_instants(live: bool, late: bool, tmp_path: Path) -> None:
    draw = random.Random(11)

    def some(count: int) -> list[Row]:
        minutes = draw.choices([None, *range(-SPAN, SPAN, 10)], k=count)
        delays = draw.choices([0, 0, 30, 90] if late else [0, -20], k=count)
        return [
            {
                "place": draw.choices(["A", "B|", "C", None], [80, 10, 9, 1])[0],
                "number": draw.choices([1, 2, None], [80, 19, 1])[0],
                "seen": at(EPOCH, minute),
                "known": at(EPOCH, after(minute, delay)),
                "_ingested_at": at(EPOCH, after(minute, draw.choice([0, 40]))),
                "_live": live,
                "_batch": draw.choice("ab"),
                "v": draw.choice([None, math.nan, *map(float, range(50))]),
                "kind": draw.choice(["A", "B|", "C"]),
            }
            for minute, delay in zip(minutes, delays, strict=True)
        ]

    schema = {
        "place": pl.String,
        "number": pl.Int64,
        "_batch": pl.String,
        "v": pl.Float64,
        "kind": pl.String,
        "_live": pl.Boolean,
    }
    schema |= dict.fromkeys(("seen", "known", "_ingested_at"), UTC_US)
    shape = {n: schema[n] for n in ("place", "number", "seen", "known", "_ingested_at", "_live", "_batch", "v", "kind")}
    known, near = pl.DataFrame(some(1200), schema=shape), pl.DataFrame(some(500), schema=shape).drop("number", "known")
    sites = pl.DataFrame({"place": ["A", "C"], "region": ["A", "B|"]})
    rows = known.sample(40, seed=1).select(p="place", n="number", at=pl.col("seen") + 5 * MINUTE).with_row_index("id")
    tables = {"events": known, "areas": near, "sites": sites}
    made = declared("3h", "70m", "25m")
    for name, table in tables.items():  # a scan that cuts the columns at different rows
        table.write_parquet(tmp_path / f"{name}.parquet", row_group_size=100)
    found = join_offline(rows, made, {n: pl.scan_parquet(tmp_path / f"{n}.parquet") for n in tables})
    assert found["w.v"].count() > 5
    assert found["past.n"].sum() > 40
    assert found.equals(join_offline(rows, made, tables))
    assert_same(found, reference(rows, made, tables))
