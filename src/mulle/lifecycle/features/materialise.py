"""The online store's feed: what became available since the last time is written where serving reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import polars as pl

from mulle.core.declare.features import AsOf, Features, History, Lookup
from mulle.core.ports.online import Entry, Online
from mulle.core.records.bundle import JoinSpec
from mulle.kernel.dtypes import dtype_of
from mulle.lifecycle.features.timeline import (
    AT,
    EVER,
    KEY,
    TIME,
    asof_events,
    known_rows,
    micros,
    plain,
    span_us,
    timeless_rows,
)
from mulle.lifecycle.features.windows import TICK, history_values

__all__ = ["KEPT", "materialise", "trim"]

KEPT = timedelta(days=7)
"""How far back a request may lie and still be answered from the store; longer where a join's own span is longer."""


def materialise(
    features: Features,
    tables: Mapping[str, pl.DataFrame],
    specs: Sequence[JoinSpec],
    online: Online,
    *,
    since: datetime | None,
    until: datetime,
    bulk: bool = True,
) -> dict[str, int]:
    """Write what became available in ``(since, until]`` to the online store and mark each table complete to `until`.

    Histories get an entry at every tick, for every key that has a value there. As-of rows get one at the later of their
    time and availability, with their own time beside the values, so that `within` is judged by it; a row that changes
    nothing (it is older than one already known) gets none. Tables without time get their current rows at `EVER`.

    Parameters
    ----------
    features : Features
    tables : mapping
        Dataset name to its rows: at least those available in ``(since - window, until]`` for histories, all for others.
    specs : sequence of JoinSpec
        What `join_specs` gave for these features.
    online : Online
    since, until : datetime
        `since` None means the table's own mark; a table without mark, or marked before `since`, is filled from its mark,
        or from `KEPT` (or its own longer span) before `until`.
    bulk : bool
        As in `join_offline`.

    Returns
    -------
    dict
        Join to the number of entries written.
    """
    joins = dict(features.joins)
    written = {}
    for spec in specs:
        join, table = joins[spec.name], tables[spec.dataset]
        start = _start(spec, online, since, until)
        fresh = None if online.marked(spec.table) is None else start
        if isinstance(join, History):
            # Ticks older than what is kept would be trimmed at once: after a long rest they are left out.
            entries = _history_entries(join, spec, table, max(start, until - _kept(spec)), until, bulk)
        elif isinstance(join, AsOf) or join.dataset.time:
            entries = _asof_entries(join, spec, table, fresh, until, bulk)
        else:
            entries = _lookup_entries(join, spec, table, fresh)
        written[spec.name] = online.put(spec.table, entries)
        online.mark(spec.table, until)
    return written


def trim(specs: Sequence[JoinSpec], online: Online, *, until: datetime) -> int:
    """Delete what no request within `KEPT` of `until` can need; each key's last entry stays. Returns how many."""
    return sum(online.trim(spec.table, micros(until - _kept(spec))) for spec in specs)


def _kept(spec: JoinSpec) -> timedelta:
    # A history's entry stands for its own tick alone; only an as-of row answers for later instants.
    return max(KEPT, timedelta(microseconds=spec.within_us or 0) + KEPT)


def _start(spec: JoinSpec, online: Online, since: datetime | None, until: datetime) -> datetime:
    marked = online.marked(spec.table)
    filled = marked if marked is not None else until - _kept(spec)
    return filled if since is None else min(since, filled)


def _history_entries(
    join: History, spec: JoinSpec, table: pl.DataFrame, since: datetime, until: datetime, bulk: bool
) -> Iterator[Entry]:
    every, low, high = span_us(join.every), micros(since), micros(until)
    ticks = range((low // every + 1) * every, high + 1, every)
    if not ticks:
        return iter(())
    window = span_us(join.window)
    recent = known_rows(table, join.dataset, join.on, bulk=bulk, after=ticks[0] - window, until=high)
    keys = recent.select(pl.col(KEY).unique())
    wanted = keys.join(pl.DataFrame({TICK: pl.Series(ticks, dtype=pl.Int64)}), how="cross")
    values = history_values(table, join, wanted, bulk=bulk)
    return _entries(values.select(KEY, TICK, *plain(spec.columns)), TICK, spec)


def _asof_entries(
    join: AsOf | Lookup, spec: JoinSpec, table: pl.DataFrame, since: datetime | None, until: datetime, bulk: bool
) -> Iterator[Entry]:
    after = None if since is None else micros(since)
    events = asof_events(table, join, bulk=bulk, after=after, until=micros(until))
    events = events.select(KEY, AT, pl.col(TIME).alias("_t"), *plain(spec.columns))
    return _entries(events, AT, spec)


def _lookup_entries(join: Lookup, spec: JoinSpec, table: pl.DataFrame, since: datetime | None) -> Iterator[Entry]:
    current = timeless_rows(table, join)
    if since is not None and "_ingested_at" in table.columns:
        current = current.filter(pl.col("_ingested_at") > since)
    current = current.select(KEY, pl.lit(EVER).alias(AT), *plain(spec.columns))
    return _entries(current, AT, spec)


def _entries(frame: pl.DataFrame, at: str, spec: JoinSpec) -> Iterator[Entry]:
    temporal = [pl.col(n).to_physical() for n, t in spec.columns.items() if dtype_of(t).is_temporal()]
    frame = frame.with_columns(temporal)
    keys, instants = frame[KEY].to_list(), frame[at].to_list()
    return zip(keys, instants, frame.drop(KEY, at).to_dicts(), strict=True)
