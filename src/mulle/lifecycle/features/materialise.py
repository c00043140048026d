"""The online store's feed: what became available since the last time is written where serving reads it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import polars as pl

from mulle.core.declare.features import AsOf, Features, History, Join, Lookup
from mulle.core.ports.online import Entry, Mark, Online
from mulle.core.records.bundle import JoinSpec
from mulle.kernel.dtypes import dtype_of
from mulle.kernel.keys import key_expr
from mulle.lifecycle.features.fresh import Published, Span, TableReader
from mulle.lifecycle.features.timeline import (
    AT,
    EVER,
    KEY,
    KNOWN,
    TIME,
    asof_events,
    micros,
    plain,
    span_us,
    timeless_rows,
)
from mulle.lifecycle.features.windows import TICK, history_values

__all__ = ["KEPT", "Published", "forget", "materialise", "trim"]

KEPT = timedelta(days=7)
"""How far back a request may lie and still be answered from the store; longer where a join's own span is longer."""

_PORTION = 20_000
_PAIRS = 500_000
"""Keys times ticks that are computed at once; bounds memory."""

_TOLD = "__told"
Table = Published | pl.DataFrame | pl.LazyFrame


def materialise(
    features: Features,
    tables: Mapping[str, Table],
    specs: Sequence[JoinSpec],
    online: Online,
    *,
    since: datetime | None = None,
    until: datetime,
    now: datetime | None = None,
) -> dict[str, int]:
    """Write what the store lacks to answer requests up to `until`, and mark each table with how far it is filled.

    Histories get an entry at every tick, for every key that has a value there. As-of rows get one at the later of their
    time and availability, with their own time beside the values, so that `within` is judged by it; a row that changes
    nothing (it is older than one already known) gets none. Tables without time get their current rows at `EVER`.

    A row is new to a store by its ``_version``, whatever its instants, or by becoming available after the mark. So a row
    that is published late, though it was available earlier, corrects what was written: the as-of entries that it
    overtakes, and every kept tick whose window holds it, or held the row that it replaces. An entry whose reason is gone
    is overwritten by an empty one. The work is that of the new rows and the windows they touch.

    Parameters
    ----------
    features : Features
    tables : mapping
        Dataset name to its rows, superseded versions of them included. Bare frames are taken as one version, all of
        whose rows are looked at by ``_ingested_at``.
    specs : sequence of JoinSpec
        What `join_specs` gave for these features.
    online : Online
    since : datetime, optional
        Fill again from here, where that is before the table's mark.
    until : datetime
        Of tables marked later than this, up to their mark.
    now : datetime, optional
        When requests are made, where that is not `until`: a table is first filled from `KEPT` (or its join's own longer
        span) before.

    Returns
    -------
    dict
        Join to the number of entries written.
    """
    joins = dict(features.joins)
    written = {}
    for spec in specs:
        table = _published(tables[spec.dataset])
        marked = online.marked(spec.table)
        begin = None if marked is None else marked.until if since is None else min(since, marked.until)
        end = until if marked is None else max(until, marked.until)
        span = Span(
            since=None if begin is None else micros(begin), until=micros(end), horizon=micros((now or until) - _kept(spec))
        )
        reader = TableReader(joins[spec.name], table, marked.version if marked else 0, span)
        written[spec.name] = online.put(spec.table, _entries(joins[spec.name], spec, reader, span))
        online.mark(spec.table, Mark(end, table.version))
    return written


def trim(specs: Sequence[JoinSpec], online: Online, *, until: datetime) -> int:
    """Delete what no request within `KEPT` of `until` can need; each key's last entry stays. Returns how many."""
    return sum(online.trim(spec.table, micros(until - _kept(spec))) for spec in specs)


def forget(
    features: Features,
    dataset: str,
    specs: Sequence[JoinSpec],
    online: Online,
    gone: pl.DataFrame,
    left: Table,
    *,
    now: datetime,
) -> int:
    """Take erased rows out of the store: every entry of a key they had, then what the rows that are left give it.

    Parameters
    ----------
    features : Features
    dataset : str
        The one that rows were erased from.
    specs : sequence of JoinSpec
    online : Online
    gone : polars.DataFrame
        The erased rows; at least the dataset's key and the columns that histories over it are by.
    left : Published or frame
        The rows that are left.
    now : datetime

    Returns
    -------
    int
        Entries deleted. Until the second half is done, a request finds nothing for these keys.
    """
    joins, deleted = dict(features.joins), 0
    for spec in specs:
        marked = online.marked(spec.table)
        if spec.dataset != dataset or marked is None:
            continue
        join, table = joins[spec.name], _published(left)
        by = list(join.by if isinstance(join, History) else join.dataset.key)
        keys = gone.select(by).drop_nulls().unique()
        deleted += online.forget(spec.table, keys.select(key_expr(by).alias(KEY))[KEY].to_list())
        span = Span(since=None, until=micros(marked.until), horizon=micros(now - _kept(spec)))
        rest = Published(table.rows.join(keys.lazy(), on=by, how="semi"), table.version)
        online.put(spec.table, _entries(join, spec, TableReader(join, rest, 0, span), span))
    return deleted


def _published(table: Table) -> Published:
    return table if isinstance(table, Published) else Published(table.lazy())


def _kept(spec: JoinSpec) -> timedelta:
    # A history's entry stands for its own tick alone; only an as-of row answers for later instants.
    return max(KEPT, timedelta(microseconds=spec.within_us or 0) + KEPT)


def _entries(join: Join, spec: JoinSpec, reader: TableReader, span: Span) -> Iterator[Entry]:
    if isinstance(join, History):
        return _history_entries(join, spec, reader, span)
    if join.dataset.time is not None:
        return _asof_entries(join, spec, reader, span)
    return _lookup_entries(join, spec, reader, span)


def _lookup_entries(join: Lookup | AsOf, spec: JoinSpec, reader: TableReader, span: Span) -> Iterator[Entry]:
    assert isinstance(join, Lookup)  # an as-of join cannot be declared on a table without time
    told = keys = None
    if span.since is None:
        rows = reader.all(span.until)
    else:
        keys = reader.keys_of(reader.fresh())
        if keys.is_empty():
            return
        rows = reader.of_keys(keys)
        told = keys.select(key_expr(join.dataset.key).alias(KEY))
    found = timeless_rows(rows, join).select(KEY, *plain(spec.columns), pl.lit(True).alias(_TOLD))
    if told is not None:
        found = told.join(found, on=KEY, how="left")
    yield from _written(found.with_columns(pl.lit(EVER).alias(AT)), AT, spec)


def _asof_entries(join: Lookup | AsOf, spec: JoinSpec, reader: TableReader, span: Span) -> Iterator[Entry]:
    said = None
    if span.since is None:
        rows = reader.all(span.until)
    else:
        fresh = reader.fresh(span.since, span.until)
        known = reader.known(fresh)
        if known.is_empty():
            return
        # A row's entry stands at or after its time, and no entry before it is touched by it.
        low = int(known[TIME].min())  # type: ignore[arg-type]
        # What stands from then on may still be a row of before: of an earlier time, as far back as the join may reach.
        reach = None if spec.within_us is None else low - spec.within_us
        rows = reader.of_keys(reader.keys_of(fresh), reach)
        said = pl.concat([reader.known(rows), known]).filter(pl.col(KNOWN) <= span.until)
        said = said.select(KEY, pl.max_horizontal(TIME, KNOWN).alias(AT)).filter(pl.col(AT) >= low).unique()
    events = asof_events(rows, join, until=span.until)
    events = events.select(KEY, AT, pl.col(TIME).alias("_t"), *plain(spec.columns), pl.lit(True).alias(_TOLD))
    if said is not None:
        # Where something was once said an entry may stand, so it gets what holds there now.
        events = said.sort(AT).join_asof(events.sort(AT), on=AT, by=KEY, strategy="backward", check_sortedness=False)
    late = pl.col(AT) > span.horizon
    last = pl.col(AT) == pl.col(AT).filter(~late).max().over(KEY)
    yield from _written(events.filter(late | last.fill_null(False)), AT, spec)


def _history_entries(join: History, spec: JoinSpec, reader: TableReader, span: Span) -> Iterator[Entry]:
    every, window = span_us(join.every), span_us(join.window)
    start = span.horizon if span.since is None else max(span.since, span.horizon)
    ticks = range((start // every + 1) * every, span.until + 1, every)
    touched = _touched(join, reader, span)
    bounds = [t for t in (touched[TICK].min(), touched[TICK].max(), *ticks[:1], *ticks[-1:]) if isinstance(t, int)]
    if not bounds:
        return
    rows = reader.between(min(bounds) - window, max(bounds))
    for wanted in touched.sort(TICK, KEY).iter_slices(_PAIRS):
        found = history_values(rows, join, wanted).with_columns(pl.lit(True).alias(_TOLD))
        yield from _written(
            wanted.join(found, on=[KEY, TICK], how="left").select(KEY, TICK, *plain(spec.columns), _TOLD), TICK, spec
        )
    if not ticks:
        return
    known = reader.known(rows).filter(pl.col(KNOWN).is_between(ticks[0] - window, ticks[-1], closed="right"))
    recent = known.select(pl.col(KEY).unique())
    ticks = _reached(ticks, known, window)
    step = max(1, _PAIRS // max(1, recent.height))
    for i in range(0, len(ticks), step):
        wanted = recent.join(pl.DataFrame({TICK: pl.Series(ticks[i : i + step], dtype=pl.Int64)}), how="cross")
        found = history_values(rows, join, wanted)
        yield from _written(found.select(KEY, TICK, *plain(spec.columns), pl.lit(True).alias(_TOLD)), TICK, spec)


def _reached(ticks: range, known: pl.DataFrame, window: int) -> range:
    """Leave out the ticks before the first row and those whose window begins after the last one."""
    first, last = known[KNOWN].min(), known[KNOWN].max()
    if not isinstance(first, int) or not isinstance(last, int):
        return ticks[:0]
    return ticks[bisect_left(ticks, first) : bisect_left(ticks, last + window)]


def _touched(join: History, reader: TableReader, span: Span) -> pl.DataFrame:
    """Give the keys and ticks that are in the store and may have changed."""
    every, window = span_us(join.every), span_us(join.window)
    nothing = pl.DataFrame(schema={KEY: pl.String, TICK: pl.Int64})
    if span.since is None or span.since <= span.horizon:
        return nothing
    known = reader.known(reader.revised(span.horizon - window, span.since)).filter(pl.col(KNOWN) <= span.since)
    first = ((span.horizon // every + 1) * every, span.since // every * every)
    spans = known.select(
        KEY,
        ((pl.col(KNOWN) - 1).floordiv(every) * every + every).clip(lower_bound=first[0]).alias("__low"),
        ((pl.col(KNOWN) + window - 1).floordiv(every) * every).clip(upper_bound=first[1]).alias("__high"),
    )
    spans = spans.filter(pl.col("__low") <= pl.col("__high")).unique()
    if spans.is_empty():
        return nothing
    return spans.select(KEY, pl.int_ranges("__low", pl.col("__high") + 1, every).alias(TICK)).explode(TICK).unique()


def _written(frame: pl.DataFrame, at: str, spec: JoinSpec) -> Iterator[Entry]:
    """Give a frame's rows as entries, a portion at a time; those that `_TOLD` is null for are empty."""
    temporal = [pl.col(n).to_physical() for n, t in spec.columns.items() if dtype_of(t).is_temporal()]
    frame = frame.sort(KEY, at)  # neighbours in the store are then written together
    for part in frame.iter_slices(_PORTION):
        part = part.with_columns(temporal)
        values = part.drop(KEY, at, _TOLD).to_dicts()
        told = part[_TOLD]
        if told.null_count():
            values = [v if t else {} for v, t in zip(values, told.to_list(), strict=True)]
        yield from zip(part[KEY].to_list(), part[at].to_list(), values, strict=True)
