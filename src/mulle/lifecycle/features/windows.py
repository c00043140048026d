"""Histories: aggregates over what became known in ``(tick - window, tick]``, for the ticks that are wanted."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from mulle.core.declare.features import History
from mulle.kernel.bookkeeping import data_columns
from mulle.kernel.keys import key_expr
from mulle.lifecycle.features.timeline import END, KEY, KNOWN, POSITION, TIME, known_line, picked, sorted_by, span_us

__all__ = ["TICK", "history_values", "sources_of", "tick_of"]

TICK = "__tick"
_CODE, _LOW, _HIGH, _ORDER = "__code", "__low", "__high", "__order"
_CHUNK = 4_000_000
"""Most rows that are spread out at once; bounds memory."""


def tick_of(micros: pl.Expr, every_us: int) -> pl.Expr:
    """Give the last tick not after an instant; ticks are multiples of `every_us` since the UTC epoch."""
    return (micros.floordiv(every_us) * every_us).cast(pl.Int64)


def sources_of(join: History, columns: Sequence[str]) -> list[str]:
    """List the columns that a history's values are made of, in the order of `columns`."""
    if any(e.meta.has_multiple_outputs() for _, e in join.values):
        return data_columns(columns)
    named = {root for _, e in join.values for root in e.meta.root_names()}
    return [c for c in columns if c in named]


def history_values(table: pl.DataFrame, join: History, wanted: pl.DataFrame, *, key: pl.Series | None = None) -> pl.DataFrame:
    """Aggregate a table's past at ticks.

    Parameters
    ----------
    table : polars.DataFrame
        In any order; several versions of a row may be present.
    join : History
    wanted : polars.DataFrame
        ``__key`` (text) and ``__tick`` (Int64 microseconds), unique, without nulls.
    key : polars.Series, optional
        The key of each of the table's rows, where `wanted` names them otherwise than by text.

    Returns
    -------
    polars.DataFrame
        ``__key``, ``__tick`` and a column per value, for those of `wanted` with at least one row in the window. Inside a
        window rows follow each other by availability, then time, then the dataset's key.
    """
    window = span_us(join.window)
    low, high = _bounds(wanted)
    key = table.select(key_expr(join.by).alias(KEY))[KEY] if key is None else key
    sources = sources_of(join, table.columns)
    line = known_line(table, join.dataset, key, until=high, content=sources)
    codes = wanted.select(pl.col(KEY).unique()).with_row_index(_CODE)
    wanted = wanted.join(codes, on=KEY)
    line = line.filter(pl.col(KNOWN) > low - window).join(codes, on=KEY, maintain_order="left")
    line = line.select(_CODE, KNOWN, END, TIME, POSITION)
    line = _in_order(line, table, [*join.dataset.key, *(c for c in sources if c not in join.dataset.key)])
    rows = line.select(_CODE, KNOWN, END).hstack(picked(table, sources, line[POSITION]))
    values = [expr.alias(name) for name, expr in join.values]
    if rows.is_empty():
        shape = rows.group_by(_CODE).agg(values)
        return wanted.join(shape, on=_CODE, how="inner").drop(_CODE)
    ended = rows.filter(pl.col(END) - pl.col(KNOWN) < window)[_CODE].unique().implode()
    if not ended.explode().len():
        return _aggregate(rows, wanted, join, values, revised=False).drop(_CODE)
    whole = rows.filter(~pl.col(_CODE).is_in(ended))
    parts = []
    for some, chosen in ((whole, ~pl.col(_CODE).is_in(ended)), (rows, pl.col(_CODE).is_in(ended))):
        ticks = wanted.filter(chosen)
        if ticks.height:
            parts.append(_aggregate(some, ticks, join, values, revised=some is rows))
    return pl.concat(parts).drop(_CODE)


def _in_order(line: pl.DataFrame, table: pl.DataFrame, content: Sequence[str]) -> pl.DataFrame:
    """Sort by key and availability; rows equal in both by time, then by what they hold, never by where they stood."""
    # A line comes in order of time, which mostly is that of availability: then one column is left to sort by.
    line = sorted_by(line, KNOWN).sort(_CODE, maintain_order=True)
    same = (pl.col(_CODE) == pl.col(_CODE).shift()) & (pl.col(KNOWN) == pl.col(KNOWN).shift())
    tied = line.select((same | same.shift(-1)).fill_null(False).alias("m"))["m"]
    if not tied.any():
        return line
    # Equal rows stand side by side, so sorting them among themselves and putting them back leaves the others in place.
    ties, place = line.filter(tied), tied.arg_true()
    flat = [c for c in content if not table.schema[c].is_nested()]
    ties = ties.hstack(picked(table, flat, ties[POSITION]).select(pl.all().name.prefix("__by.")))
    ties = ties.sort(_CODE, KNOWN, TIME, *(f"__by.{c}" for c in flat)).select(line.columns)
    order = pl.concat([line.filter(~tied).with_columns((~tied).arg_true().alias(_ORDER)), ties.with_columns(place.alias(_ORDER))])
    return order.sort(_ORDER).drop(_ORDER)


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
    # An as-of join by key wants each key's rows in order, no more, and takes the last of equal ones.
    ends = rows.select(_CODE, pl.col(KNOWN).alias("__by"), pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias(POSITION))
    firsts = ends.group_by(_CODE).agg((pl.col(POSITION).min() - 1).alias("__first"))
    found = wanted.join(firsts, on=_CODE, how="inner")
    for name, by in ((_LOW, pl.col(TICK) - window), (_HIGH, pl.col(TICK))):
        found = found.with_columns(by.alias("__by")).sort("__by")
        found = found.join_asof(ends, on="__by", by=_CODE, strategy="backward", check_sortedness=False)
        found = found.with_columns(pl.coalesce(POSITION, "__first").alias(name)).drop(POSITION)
    return found.filter(pl.col(_HIGH) > pl.col(_LOW)).drop("__by", "__first")


def _spread(rows: pl.DataFrame, ranges: pl.DataFrame, values: list[pl.Expr]) -> pl.DataFrame:
    ranges = ranges.with_columns((pl.col(_HIGH) - pl.col(_LOW)).cum_sum().floordiv(_CHUNK).alias("__chunk"))
    parts = []
    for part in ranges.partition_by("__chunk", maintain_order=True) or [ranges]:
        spread = part.select(KEY, _CODE, TICK, pl.int_ranges(_LOW, _HIGH).alias(POSITION)).explode(POSITION)
        gathered = rows.drop(_CODE)[spread[POSITION]].hstack(spread.select(KEY, _CODE, TICK))
        held = gathered.filter(pl.col(END) > pl.col(TICK))
        parts.append(held.group_by(KEY, TICK, _CODE, maintain_order=True).agg(values))
    return pl.concat(parts)


def _sliding(rows: pl.DataFrame, wanted: pl.DataFrame, values: list[pl.Expr], window: int, every: int) -> pl.DataFrame:
    # group_by_dynamic leaves out windows that start before a key's first row. A blank row far enough before it makes
    # them appear; no window holds both, and those of the blank row are dropped.
    blanks = rows.group_by(_CODE).agg(pl.col(KNOWN).min() - 2 * window - every)
    padded = pl.concat([blanks, rows], how="diagonal").sort(_CODE, KNOWN, maintain_order=True)
    firsts = blanks.select(_CODE, pl.col(KNOWN).alias("__blank"))
    offset = (-window) % every
    slid = padded.group_by_dynamic(
        KNOWN, every=f"{every}i", period=f"{window}i", offset=f"{offset}i", closed="right", label="left", group_by=_CODE
    ).agg(values)
    slid = slid.with_columns((pl.col(KNOWN) + window).alias(TICK)).join(firsts, on=_CODE)
    slid = slid.filter(pl.col(TICK) >= pl.col("__blank") + window).drop(KNOWN, "__blank")
    names = [v.meta.output_name() for v in values]
    return wanted.join(slid, on=[_CODE, TICK], how="inner").select(KEY, TICK, _CODE, *names)
