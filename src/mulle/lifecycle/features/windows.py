"""Histories: aggregates over what became known in ``(tick - window, tick]``, for the ticks that are wanted."""

from __future__ import annotations

import polars as pl

from mulle.core.declare.features import History
from mulle.lifecycle.features.timeline import END, KEY, KNOWN, known_rows, span_us

__all__ = ["TICK", "history_values", "tick_of"]

TICK = "__tick"
_CODE, _LOW, _HIGH = "__code", "__low", "__high"
_CHUNK = 4_000_000
"""Most rows that are spread out at once; bounds memory."""


def tick_of(micros: pl.Expr, every_us: int) -> pl.Expr:
    """Give the last tick not after an instant; ticks are multiples of `every_us` since the UTC epoch."""
    return (micros.floordiv(every_us) * every_us).cast(pl.Int64)


def history_values(table: pl.DataFrame, join: History, wanted: pl.DataFrame, *, bulk: bool) -> pl.DataFrame:
    """Aggregate a table's past at ticks.

    Parameters
    ----------
    table : polars.DataFrame
        In any order.
    join : History
    wanted : polars.DataFrame
        ``__key`` (String) and ``__tick`` (Int64 microseconds), unique, without nulls.
    bulk : bool
        As in `known_rows`.

    Returns
    -------
    polars.DataFrame
        ``__key``, ``__tick`` and a column per value, for those of `wanted` with at least one row in the window.
    """
    window = span_us(join.window)
    low, high = _bounds(wanted)
    rows = known_rows(table, join.dataset, join.on, bulk=bulk, after=low - window, until=high)
    values = [expr.alias(name) for name, expr in join.values]
    codes = wanted.select(pl.col(KEY).unique()).with_row_index(_CODE)
    wanted = wanted.join(codes, on=KEY)
    rows = rows.join(codes, on=KEY).sort(_CODE, KNOWN)
    if rows.is_empty():
        shape = rows.group_by(_CODE).agg(values)
        return wanted.join(shape, on=_CODE, how="inner").drop(_CODE)
    ended = rows.filter(pl.col(END) - pl.col(KNOWN) < window)[_CODE].unique()
    whole = rows.filter(~pl.col(_CODE).is_in(ended.implode()))
    parts = []
    for some, chosen in ((whole, ~pl.col(_CODE).is_in(ended.implode())), (rows, pl.col(_CODE).is_in(ended.implode()))):
        ticks = wanted.filter(chosen)
        if ticks.height:
            parts.append(_aggregate(some, ticks, join, values, revised=some is rows))
    return pl.concat(parts).drop(_CODE)


def _bounds(wanted: pl.DataFrame) -> tuple[int, int]:
    ticks = wanted[TICK]
    return (int(ticks.min()), int(ticks.max())) if len(ticks) else (0, 0)  # type: ignore[arg-type]


def _aggregate(rows: pl.DataFrame, wanted: pl.DataFrame, join: History, values: list[pl.Expr], *, revised: bool) -> pl.DataFrame:
    window, every = span_us(join.window), span_us(join.every)
    ranges = _ranges(rows, wanted, window)
    spread = int((ranges[_HIGH] - ranges[_LOW]).sum())
    low, high = _bounds(wanted)
    all_ticks = ((high - low + 3 * window) // every + 1) * wanted[_CODE].n_unique()
    if revised or spread <= all_ticks:
        return _spread(rows, ranges, values)
    return _sliding(rows, wanted, values, window, every)


def _ranges(rows: pl.DataFrame, wanted: pl.DataFrame, window: int) -> pl.DataFrame:
    # Rows are sorted by key and availability, so a window is a range of positions: (last <= tick - window, last <= tick].
    ends = rows.select(_CODE, pl.col(KNOWN).alias("__by"), pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias("__position"))
    firsts = ends.group_by(_CODE).agg((pl.col("__position").min() - 1).alias("__first"))
    ends = ends.unique([_CODE, "__by"], keep="last", maintain_order=True).sort("__by")
    found = wanted.join(firsts, on=_CODE, how="inner")
    for name, by in ((_LOW, pl.col(TICK) - window), (_HIGH, pl.col(TICK))):
        found = found.with_columns(by.alias("__by")).sort("__by")
        found = found.join_asof(ends, on="__by", by=_CODE, strategy="backward", check_sortedness=False)
        found = found.with_columns(pl.coalesce("__position", "__first").alias(name)).drop("__position")
    return found.filter(pl.col(_HIGH) > pl.col(_LOW)).drop("__by", "__first")


def _spread(rows: pl.DataFrame, ranges: pl.DataFrame, values: list[pl.Expr]) -> pl.DataFrame:
    ranges = ranges.with_columns((pl.col(_HIGH) - pl.col(_LOW)).cum_sum().floordiv(_CHUNK).alias("__chunk"))
    parts = []
    for part in ranges.partition_by("__chunk", maintain_order=True) or [ranges]:
        spread = part.select(KEY, _CODE, TICK, pl.int_ranges(_LOW, _HIGH).alias("__position")).explode("__position")
        gathered = rows.drop(KEY, _CODE)[spread["__position"]].hstack(spread.select(KEY, _CODE, TICK))
        held = gathered.filter(pl.col(END) > pl.col(TICK))
        parts.append(held.group_by(KEY, TICK, _CODE, maintain_order=True).agg(values))
    return pl.concat(parts)


def _sliding(rows: pl.DataFrame, wanted: pl.DataFrame, values: list[pl.Expr], window: int, every: int) -> pl.DataFrame:
    # group_by_dynamic leaves out windows that start before a key's first row. A blank row far enough before it makes
    # them appear; no window holds both, and those of the blank row are dropped.
    blanks = rows.group_by(_CODE).agg(pl.col(KNOWN).min() - 2 * window - every)
    padded = pl.concat([blanks, rows], how="diagonal").sort(_CODE, KNOWN)
    firsts = blanks.select(_CODE, pl.col(KNOWN).alias("__blank"))
    offset = (-window) % every
    slid = padded.group_by_dynamic(
        KNOWN, every=f"{every}i", period=f"{window}i", offset=f"{offset}i", closed="right", label="left", group_by=_CODE
    ).agg(values)
    slid = slid.with_columns((pl.col(KNOWN) + window).alias(TICK)).join(firsts, on=_CODE)
    slid = slid.filter(pl.col(TICK) >= pl.col("__blank") + window).drop(KNOWN, "__blank")
    names = [v.meta.output_name() for v in values]
    return wanted.join(slid, on=[_CODE, TICK], how="inner").select(KEY, TICK, _CODE, *names)
