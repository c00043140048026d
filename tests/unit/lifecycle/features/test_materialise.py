"""The online store, fed step by step, gives at every step what the offline join gives: late, corrected, restored, erased."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mulle.adapters.online.lmdb import LmdbOnline
from mulle.core.clock import instant
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.features import asof, features, history, lookup
from mulle.core.declare.sources import Files
from mulle.core.ports.online import Entry, Mark
from mulle.kernel.dtypes import schema_text
from mulle.lifecycle.features.join import join_offline, join_specs
from mulle.lifecycle.features.materialise import KEPT, Published, forget, materialise, trim
from mulle.lifecycle.features.read import OnlineReader

START = instant("2013-01-01T00:30:00Z")
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
UTC_US = pl.Datetime("us", "UTC")

flights = Dataset("flights", Files("f"), key="id", time="at", known_at="landed", outcome=["y"])
weather = Dataset("weather", Files("w"), key="origin", time="seen", known_at="told")
planes = Dataset("planes", Files("p"), key="tail")


@features(
    flights,
    weather=asof(weather, on="origin", within="5h"),
    climate=lookup(weather, on="origin"),
    plane=lookup(planes, on="tail"),
    route=history(
        flights, on=["origin", "tail"], window="3h", every="25m", mean=pl.col("y").mean(), n=pl.len(), last=pl.col("at").max()
    ),
)
def joined(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows


SCHEMAS = {
    "flights": {"id": pl.Int64, "origin": pl.String, "tail": pl.String, "at": UTC_US, "landed": UTC_US, "y": pl.Float64},
    "weather": {"origin": pl.String, "seen": UTC_US, "told": UTC_US, "wind": pl.Float64},
    "planes": {"tail": pl.String, "year": pl.Int64, "built": pl.Date},
}
BOOKKEEPING = {"_ingested_at": UTC_US, "_batch": pl.String, "_version": pl.Int32, "_live": pl.Boolean}
SPECS = join_specs(joined, {name: schema_text(pl.DataFrame(schema=s)) for name, s in SCHEMAS.items()})


class Lakeside:
    """Datasets as they are published: every version of every row, and versions that can be taken back."""

    def __init__(self) -> None:
        self.rows = {n: pl.DataFrame(schema={**s, **BOOKKEEPING}) for n, s in SCHEMAS.items()}
        self.version = dict.fromkeys(SCHEMAS, 0)
        self.spans: dict[str, dict[int, tuple[int, ...]]] = {n: {0: ()} for n in SCHEMAS}

    def publish(self, name: str, rows: list[dict[str, Any]], at: datetime, *, live: bool) -> None:
        number = self._next(name, (*self.spans[name][self.version[name]],), own=True)
        book = {"_ingested_at": at, "_batch": f"b{number:05}", "_version": number, "_live": live}
        new = pl.DataFrame([{**r, **book} for r in rows], schema=self.rows[name].schema)
        self.rows[name] = pl.concat([self.rows[name], new])

    def restore(self, name: str, version: int) -> None:
        self._next(name, self.spans[name][min(version, self.version[name])], own=False)

    def frame(self, name: str, version: int | None = None) -> pl.DataFrame:
        held = self.spans[name][self.version[name] if version is None else version]
        return self.rows[name].filter(pl.col("_version").is_in(list(held)))

    def tables(self) -> dict[str, Published]:
        return {n: Published(self.frame(n).lazy(), self.version[n], lambda fed, n=n: self._changed(n, fed)) for n in SCHEMAS}

    def frames(self) -> dict[str, pl.DataFrame]:
        return {n: self.frame(n) for n in SCHEMAS}

    def _next(self, name: str, held: tuple[int, ...], *, own: bool) -> int:
        number = self.version[name] = self.version[name] + 1
        self.spans[name][number] = (*held, number) if own else held
        return number

    def _changed(self, name: str, fed: int) -> tuple[int, pl.LazyFrame | None]:
        before, after = set(self.spans[name][fed]), set(self.spans[name][self.version[name]])
        differ = [v for v in before | after if (v in before) != (v in after)]
        base = min(differ) - 1 if differ else self.version[name]
        return base, self.frame(name, fed).filter(pl.col("_version") > base).lazy() if before - after else None


@pytest.fixture
def online(tmp_path: Path) -> Iterator[LmdbOnline]:
    store = LmdbOnline(tmp_path)
    yield store
    store.close()


def fed(lake: Lakeside, online: Any, until: datetime) -> dict[str, int]:
    return materialise(joined, lake.tables(), SPECS, online, until=until)


def asked(until: datetime, step: timedelta = 23 * MINUTE, back: timedelta = 14 * HOUR) -> pl.DataFrame:
    """Requests about every key over the last hours, tails and origins that nobody knows included."""
    times = [until - i * step for i in range(back // step)]
    keys = [(o, t) for o in ("A", "B|", None, "Z") for t in ("N1", "N2", None)]
    rows = [{"origin": o, "tail": t, "at": at} for at in times for o, t in keys]
    return pl.DataFrame(rows, schema={"origin": pl.String, "tail": pl.String, "at": UTC_US})


def assert_equal(lake: Lakeside, online: Any, until: datetime) -> None:
    rows = asked(until)
    offline = join_offline(rows, joined, lake.frames())
    found, _ = OnlineReader(online, SPECS).join(rows, time="at", now=until)
    assert found.schema == offline.schema
    for name in offline.columns:
        pairs = zip(found[name].to_list(), offline[name].to_list(), strict=True)
        wrong = [(i, a, b) for i, (a, b) in enumerate(pairs) if a != b and not _close(a, b)]
        assert not wrong, (name, rows.row(wrong[0][0]), wrong[0])


def _close(a: Any, b: Any) -> bool:
    return isinstance(a, float) and isinstance(b, float) and a == pytest.approx(b, abs=1e-9)


minute = st.integers(0, 600)
nullable = st.one_of(minute, st.none())
origin, tail = st.sampled_from(["A", "B|", None]), st.sampled_from(["N1", "N2", None])
value = st.one_of(st.none(), st.integers(-9, 9).map(float))


def moment(minutes: int | None) -> datetime | None:
    return None if minutes is None else START + minutes * MINUTE


flight = st.builds(
    lambda i, o, t, at, landed, y: {"id": i, "origin": o, "tail": t, "at": moment(at), "landed": moment(landed), "y": y},
    st.integers(0, 5), origin, tail, st.sampled_from([0, 60, 200, 400]), nullable, value,
)  # fmt: skip
report = st.builds(
    lambda o, seen, told, w: {"origin": o, "seen": moment(seen), "told": moment(told), "wind": w},
    origin, st.sampled_from([0, 30, 100, 250, 400, 599]), nullable, value,
)  # fmt: skip
plane = st.builds(
    lambda t, y, b: {"tail": t, "year": y, "built": None if b is None else instant("1999-01-01").date() + timedelta(days=b)},
    tail, st.one_of(st.none(), st.integers(1990, 1995)), st.one_of(st.none(), st.integers(0, 3)),
)  # fmt: skip
publishing = st.one_of(
    st.tuples(st.just("flights"), st.lists(flight, max_size=5), st.booleans()),
    st.tuples(st.just("weather"), st.lists(report, max_size=4), st.booleans()),
    st.tuples(st.just("planes"), st.lists(plane, max_size=3), st.booleans()),
    st.tuples(st.just("restore"), st.sampled_from(list(SCHEMAS)), st.integers(0, 4)),
)
step = st.tuples(st.integers(1, 200), st.lists(publishing, max_size=3))


def seen(minutes: int, told: int) -> dict[str, Any]:
    return {"origin": "B|", "seen": moment(minutes), "told": moment(told), "wind": 1.0}


# A report of an earlier time that is told late stands, at its telling, behind one of a later time; a third one, later than the
# second and earlier than that telling, has the entry written anew.
OVERTAKEN = [(134, [("weather", [seen(0, 304), seen(100, 33)], True)]), (279, []), (200, [("weather", [seen(250, 111)], True)])]


@settings(max_examples=60, deadline=None)
@example(OVERTAKEN)
@given(st.lists(step, min_size=1, max_size=6))
def test_at_every_step_online_is_offline(steps: list[tuple[int, list[tuple[str, Any, Any]]]]) -> None:
    lake, now = Lakeside(), START
    with tempfile.TemporaryDirectory() as folder:
        online = LmdbOnline(folder, map_size=2**24)
        for minutes, happenings in steps:
            for i, (what, rows, how) in enumerate(happenings):
                # Some are published long before the feed looks, all of them before the instant it feeds up to.
                at = now + minutes * MINUTE * (i + 1) / 4
                if what == "restore":
                    lake.restore(rows, how)
                else:
                    lake.publish(what, rows, at, live=how)
            now += minutes * MINUTE
            fed(lake, online, now)
            assert_equal(lake, online, now)
        online.close()


def a_report(origin: str, seen: int, wind: float, told: int | None = None) -> dict[str, Any]:
    return {"origin": origin, "seen": moment(seen), "told": moment(seen if told is None else told), "wind": wind}


def a_flight(id: int, at: int, landed: int, y: float, origin: str = "A", tail: str = "N1") -> dict[str, Any]:
    return {"id": id, "origin": origin, "tail": tail, "at": moment(at), "landed": moment(landed), "y": y}


def read(online: Any, at: datetime, origin: str = "A", tail: str = "N1") -> dict[str, Any]:
    row = pl.DataFrame({"origin": [origin], "tail": [tail], "at": [at]}, schema=asked(START).schema)
    return OnlineReader(online, SPECS).join(row, time="at", now=at)[0].to_dicts()[0]


def test_a_late_bulk_row_corrects_what_was_written(online: LmdbOnline) -> None:
    lake = Lakeside()
    lake.publish("flights", [a_flight(1, 0, 60, 10.0)], START + 60 * MINUTE, live=False)
    lake.publish("weather", [a_report("A", 100, 5.0), a_report("A", 90, 4.0, told=200)], START + 60 * MINUTE, live=False)
    fed(lake, online, START + 600 * MINUTE)
    at = START + 270 * MINUTE
    assert (read(online, at)["route.mean"], read(online, at)["weather.wind"]) == (None, 5.0)
    assert read(online, START + 200 * MINUTE)["route.mean"] == 10.0
    lake.publish("flights", [a_flight(2, 0, 120, 20.0)], START + 610 * MINUTE, live=False)
    lake.publish("weather", [a_report("A", 230, 7.0)], START + 610 * MINUTE, live=False)
    fed(lake, online, START + 620 * MINUTE)
    assert (read(online, at)["route.mean"], read(online, at)["weather.wind"]) == (20.0, 7.0)
    assert read(online, START + 200 * MINUTE)["route.mean"] == 15.0
    assert_equal(lake, online, START + 620 * MINUTE)


def test_a_row_that_came_live_late_leaves_the_past_alone(online: LmdbOnline) -> None:
    lake = Lakeside()
    lake.publish("flights", [a_flight(1, 0, 60, 10.0)], START + 60 * MINUTE, live=False)
    fed(lake, online, START + 600 * MINUTE)
    lake.publish("flights", [a_flight(2, 0, 120, 20.0)], START + 610 * MINUTE, live=True)
    fed(lake, online, START + 660 * MINUTE)
    assert read(online, START + 200 * MINUTE)["route.mean"] == 10.0
    assert read(online, START + 659 * MINUTE)["route.mean"] == 20.0
    assert_equal(lake, online, START + 660 * MINUTE)


def test_a_correction_that_moves_a_row_empties_the_window_it_left(online: LmdbOnline) -> None:
    lake = Lakeside()
    lake.publish("flights", [a_flight(1, 0, 60, 10.0, tail="N1")], START, live=False)
    fed(lake, online, START + 300 * MINUTE)
    at = START + 200 * MINUTE
    assert read(online, at, tail="N1")["route.n"] == 1
    lake.publish("flights", [a_flight(1, 0, 60, 10.0, tail="N2")], START, live=False)
    fed(lake, online, START + 301 * MINUTE)
    assert read(online, at, tail="N1")["route.n"] is None
    assert read(online, at, tail="N2")["route.n"] == 1
    rows = pl.DataFrame({"origin": ["A"], "tail": ["N1"], "at": [at]}, schema=asked(START).schema)
    _, freshness = OnlineReader(online, SPECS).join(rows, time="at", now=at)
    assert "route" not in freshness[0]


def test_a_correction_known_before_the_window_ends_a_row_inside_it(online: LmdbOnline) -> None:
    lake, later = Lakeside(), START + 40 * HOUR
    lake.publish("flights", [{**a_flight(1, 0, 0, 10.0), "landed": later - HOUR}], START, live=False)
    fed(lake, online, later)
    assert read(online, later)["route.mean"] == 10.0
    lake.publish("flights", [a_flight(1, 0, 60, 10.0)], START, live=False)
    fed(lake, online, later + MINUTE)
    assert read(online, later)["route.mean"] is None
    fed(lake, online, later + HOUR)
    assert_equal(lake, online, later + HOUR)


def test_a_restore_takes_rows_out_of_the_store(online: LmdbOnline) -> None:
    lake, until = Lakeside(), START + 500 * MINUTE
    lake.publish("planes", [{"tail": "N1", "year": 1999, "built": None}], START, live=False)
    lake.publish("weather", [a_report("A", 300, 3.0)], START, live=False)
    lake.publish(
        "planes", [{"tail": "N1", "year": 2000, "built": None}, {"tail": "N2", "year": 1, "built": None}], START, live=False
    )
    lake.publish("weather", [a_report("A", 400, 4.0)], START, live=False)
    lake.publish("flights", [a_flight(1, 0, 400, 1.0)], START, live=False)
    fed(lake, online, until)
    assert (read(online, until)["plane.year"], read(online, until)["weather.wind"]) == (2000, 4.0)
    lake.restore("planes", 1)
    lake.restore("weather", 1)
    lake.restore("flights", 0)
    fed(lake, online, until)
    assert (read(online, until)["plane.year"], read(online, until)["weather.wind"]) == (1999, 3.0)
    assert (read(online, until, tail="N2")["plane.year"], read(online, until)["route.n"]) == (None, None)
    assert_equal(lake, online, until)
    lake.restore("planes", 2)
    fed(lake, online, until)
    assert read(online, until, tail="N2")["plane.year"] == 1


def test_nothing_new_writes_nothing_and_reads_no_row(online: LmdbOnline) -> None:
    lake, until = Lakeside(), START + 500 * MINUTE
    lake.publish("flights", [a_flight(1, 0, 400, 1.0)], START, live=False)
    lake.publish("weather", [a_report("A", 300, 3.0)], START, live=False)
    lake.publish("planes", [{"tail": "N1", "year": 1999, "built": None}], START, live=False)
    assert sum(fed(lake, online, until).values()) > 0
    read_rows = []

    def seen(frame: pl.DataFrame) -> pl.DataFrame:
        read_rows.append(frame.height)
        return frame

    tables = {n: replace(t, rows=t.rows.map_batches(seen, schema=t.rows.collect_schema())) for n, t in lake.tables().items()}
    written = materialise(joined, {**tables, "weather": lake.tables()["weather"]}, SPECS, online, until=until + MINUTE)
    assert written == {"weather": 0, "climate": 0, "plane": 0, "route": 0}
    assert sum(read_rows) == 0
    assert online.marked(SPECS[0].table) == Mark(until + MINUTE, 1)


def test_only_the_windows_that_a_new_row_touches_are_written(online: LmdbOnline) -> None:
    lake, until = Lakeside(), START + 5000 * MINUTE
    lake.publish("flights", [a_flight(i, 0, 50 * i, 1.0, tail=f"N{i % 20}") for i in range(100)], START, live=False)
    fed(lake, online, until)
    lake.publish("flights", [a_flight(1000, 0, 1000, 5.0, tail="N7")], START, live=False)
    assert fed(lake, online, until)["route"] == 3 * 60 // 25
    assert_equal(lake, online, until)


def test_a_feed_that_died_is_repeated(online: LmdbOnline) -> None:
    lake, until = Lakeside(), START + 500 * MINUTE
    lake.publish("weather", [a_report("A", i, float(i)) for i in range(400)], START, live=False)

    class Dying:
        def __init__(self) -> None:
            self.marked, self.mark = online.marked, online.mark

        def put(self, table: str, entries: Iterator[Entry]) -> int:
            online.put(table, [next(iter(entries))])
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        fed(lake, Dying(), until)
    fed(lake, online, until)
    assert_equal(lake, online, until)


def test_a_clock_behind_the_mark_moves_no_mark_back(online: LmdbOnline) -> None:
    lake, until = Lakeside(), START + 500 * MINUTE
    fed(lake, online, until)
    lake.publish("flights", [a_flight(1, 0, 400, 1.0)], START, live=False)
    fed(lake, online, until - 60 * MINUTE)
    assert online.marked(SPECS[3].table) == Mark(until, 1)
    assert_equal(lake, online, until)


def test_trimming_keeps_what_requests_need(online: LmdbOnline) -> None:
    lake, until = Lakeside(), START + 3 * KEPT
    rows = [{**a_flight(i, 0, 0, 1.0), "landed": START + i * HOUR} for i in range(24 * 21)]
    lake.publish("flights", rows, START, live=False)
    lake.publish("weather", [a_report("A", 0, 1.0), a_report("A", 60, 2.0)], START, live=False)
    fed(lake, online, START + KEPT)
    fed(lake, online, until)
    assert trim(SPECS, online, until=until) > 0
    assert read(online, until - KEPT + HOUR)["route.n"] == 3
    assert read(online, START + HOUR)["route.n"] is None
    assert read(online, until)["climate.wind"] == 2.0
    assert trim(SPECS, online, until=until) == 0


def test_the_first_fill_leaves_out_what_nobody_asks_for(online: LmdbOnline) -> None:
    lake, until = Lakeside(), START + 30 * KEPT
    lake.publish("weather", [a_report("A", i * 60, float(i)) for i in range(24 * 210)], START, live=False)
    written = fed(lake, online, until)
    assert written["climate"] == 24 * 7
    assert_equal(lake, online, until)
    assert trim(SPECS, online, until=until) == 0


def test_erased_rows_leave_no_trace(online: LmdbOnline) -> None:
    lake, until = Lakeside(), START + 500 * MINUTE
    lake.publish(
        "flights", [a_flight(1, 0, 400, 1.0), a_flight(2, 0, 410, 3.0), a_flight(3, 0, 400, 7.0, tail="N2")], START, live=False
    )
    lake.publish("weather", [a_report("A", 300, 3.0), a_report("B|", 300, 4.0)], START, live=False)
    lake.publish("planes", [{"tail": "N1", "year": 1999, "built": None}], START, live=False)
    fed(lake, online, until)
    for name, chosen in (("flights", pl.col("id") != 1), ("weather", pl.col("origin") != "A"), ("planes", pl.lit(False))):
        gone = lake.rows[name].filter(~chosen)
        lake.rows[name] = lake.rows[name].filter(chosen)
        assert forget(joined, name, SPECS, online, gone, lake.tables()[name], now=until) > 0
    assert_equal(lake, online, until)
    assert read(online, until)["route.mean"] == 3.0
    assert [online.forget(SPECS[i].table, ["A", "N1"]) for i in range(3)] == [0, 0, 0]
    gone = lake.rows["flights"]
    lake.rows["flights"] = gone.clear()
    forget(joined, "flights", SPECS, online, gone, lake.tables()["flights"], now=until)
    assert online.forget(SPECS[3].table, ["A|N1", "A|N2"]) == 0
