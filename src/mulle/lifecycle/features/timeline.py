"""What was known when: a table's rows as events on a time line, shared by the offline join and the online store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import reduce
from operator import xor

import numpy as np
import polars as pl

from mulle.core.clock import EPOCH
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.features import AsOf, Lookup
from mulle.core.errors import DataError
from mulle.kernel.bookkeeping import BATCH, BOOKKEEPING, INGESTED, LIVE
from mulle.kernel.dtypes import INSTANT, dtype_of, dtype_text, schema_text
from mulle.kernel.keys import key_expr

__all__ = [
    "AT",
    "END",
    "EVER",
    "KEY",
    "KNOWN",
    "POSITION",
    "TIME",
    "asof_events",
    "asof_line",
    "carried",
    "known_line",
    "known_rows",
    "micros",
    "picked",
    "plain",
    "sorted_by",
    "span_us",
    "timeless_line",
    "timeless_rows",
]

KEY, TIME, KNOWN, AT, END = "__key", "__time", "__known", "__at", "__end"
"""Working columns: the join's key; time, availability, instant of use, end of validity (microseconds since the epoch)."""

POSITION = "__position"
"""Working column of a line: the row's position in its table. A line is a table's time line without the table's columns."""

EVER = -(2**62)
"""The instant of what holds at any time: rows of a table without time."""

_NEVER = 2**62


def micros(moment: datetime) -> int:
    """Give an instant as microseconds since the UTC epoch."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def span_us(span: timedelta) -> int:
    """Give a span as whole microseconds."""
    return span // timedelta(microseconds=1)


def carried(dataset: Dataset, schema: dict[str, str]) -> dict[str, str]:
    """List the columns that a lookup or as-of join brings, with their dtype as text.

    Parameters
    ----------
    dataset : Dataset
        The joined table's.
    schema : dict
        Its columns to dtype text.

    Returns
    -------
    dict
        All but the key, bookkeeping and nested or binary columns; categories travel as text.
    """
    columns = {}
    for name, text in schema.items():
        if name in dataset.key or name in BOOKKEEPING:
            continue
        try:
            dtype = dtype_of(text)
        except DataError:
            continue
        if isinstance(dtype, pl.Datetime):
            text = dtype_text(INSTANT)
        if not isinstance(dtype, (pl.Binary, pl.Time)):
            columns[name] = "String" if isinstance(dtype, (pl.Categorical, pl.Null)) else text
    return columns


def plain(columns: dict[str, str]) -> list[pl.Expr]:
    """Give expressions that bring columns to their declared dtype; numbers that are not finite become null.

    JSON has no infinity, so the online store cannot keep one; offline must then not see one either.
    """
    exprs = []
    for name, text in columns.items():
        dtype, column = dtype_of(text), pl.col(name)
        if dtype.is_float():
            column = column.cast(dtype)
            exprs.append(pl.when(column.is_finite()).then(column).alias(name))
        else:
            exprs.append(column.cast(dtype))
    return exprs


def picked(table: pl.DataFrame, columns: Sequence[str], positions: pl.Series) -> pl.DataFrame:
    """Give some columns (none too) of the rows at some positions; a null position gives nulls."""
    return table.select(pl.col(c).gather(positions) for c in columns)


def sorted_by(line: pl.DataFrame, by: str) -> pl.DataFrame:
    """Sort by a column of integers without nulls, in any order among equals; without a copy where rows stand so already."""
    if line[by].is_sorted():
        return line
    # Polars sorts rows with all their columns; to order the integers alone and then take the rows once is faster.
    return line[np.argsort(line[by].to_numpy())]


def known_rows(
    table: pl.DataFrame, dataset: Dataset, by: Sequence[str], *, after: int | None = None, until: int | None = None
) -> pl.DataFrame:
    """Give a table's rows with their key, time, availability and the end of their validity.

    Parameters
    ----------
    table : polars.DataFrame
        In any order; several versions of a row (same identity of the dataset) may be present.
    dataset : Dataset
        With time.
    by : sequence of str
        The table's columns that make the join key.
    after, until : int, optional
        Only rows available in ``(after, until]``, microseconds; older ones still have their say about validity.

    Returns
    -------
    polars.DataFrame
        The table's columns and `KEY` (text), `TIME`, `KNOWN`, `END`. A row is available from its `known_at`, or from the
        later of that and ``_ingested_at`` where ``_live`` is true, and ends when a later version of it is available. Rows
        without key, time or availability are left out, and versions that never held.
    """
    line = known_line(table, dataset, _texts(table, by), until=until, content=table.columns)
    return _beside(table, line if after is None else line.filter(pl.col(KNOWN) > after))


def known_line(
    table: pl.DataFrame,
    dataset: Dataset,
    key: pl.Series,
    *,
    content: Sequence[str],
    until: int | None = None,
    beside: int | None = None,
) -> pl.DataFrame:
    """Give the line of a table's known rows; see `known_rows`.

    Parameters
    ----------
    key : polars.Series
        The join's key of each of the table's rows, of any type.
    content : sequence of str
        Columns that decide between versions that nothing else tells apart: those that are used of the row.
    beside : int, optional
        Only rows that can stand beside one available after this instant: of its time or a later one.

    Returns
    -------
    polars.DataFrame
        `POSITION` (UInt32), `KEY`, `TIME`, `KNOWN`, `END` (Int64); sorted by `TIME`.
    """
    line = table.select(_epoch(table, dataset.time).alias(TIME), _available(table, dataset).alias(KNOWN))
    line = line.with_columns(key.alias(KEY)).with_row_index(POSITION)
    chosen = pl.col(KNOWN).is_not_null() & pl.col(TIME).is_not_null()
    if until is not None:
        chosen &= pl.col(KNOWN) <= until
    if beside is not None:
        chosen &= pl.col(TIME) >= pl.col(TIME).filter(chosen & (pl.col(KNOWN) > beside)).min()
    # A version without a key stands for no key, and still ends the one before it.
    ended = _ended(sorted_by(_kept(line, chosen.fill_null(False)), TIME), table, dataset, content)
    return ended.filter(pl.col(KEY).is_not_null()) if ended[KEY].null_count() else ended


def asof_events(table: pl.DataFrame, join: AsOf | Lookup, *, after: int | None = None, until: int | None = None) -> pl.DataFrame:
    """Give the instants at which the last known row of each key changes.

    A row counts from the later of its time and its availability; one that arrives late, when a row with a later time
    is known already, changes nothing and is left out. So the last event not after t is the row with the latest time
    among those with time <= t and availability <= t.

    Parameters
    ----------
    table : polars.DataFrame
        In any order.
    join : AsOf or Lookup
    after, until : int, optional
        Only events of rows available in ``(after, until]``, microseconds; older rows still have their say.

    Returns
    -------
    polars.DataFrame
        The table's columns, `KEY` (text), `TIME` and `AT`, sorted by `AT`; one row per key and instant.
    """
    line = asof_line(table, join, _texts(table, join.dataset.key), after=after, until=until)
    return _beside(table, line.unique([KEY, AT], keep="last", maintain_order=True))


def asof_line(
    table: pl.DataFrame, join: AsOf | Lookup, key: pl.Series, *, after: int | None = None, until: int | None = None
) -> pl.DataFrame:
    """Give the line of `asof_events`, by a key of any type: `POSITION`, `KEY`, `TIME` and `AT`, sorted by `AT`.

    Several rows of a key may share an instant; the last one counts.
    """
    content = list(carried(join.dataset, schema_text(table)))
    line = known_line(table, join.dataset, key, until=until, beside=after, content=content)
    if (line[KNOWN] <= line[TIME]).all():
        # Rows known by their own time cannot arrive late: their times are the events as they stand.
        line = _kept(line, pl.col(END) > pl.col(TIME))
        fresh = line if after is None else line.filter(pl.col(KNOWN) > after)
        return fresh.select(POSITION, KEY, TIME, pl.col(TIME).alias(AT))
    line = _kept(line.with_columns(pl.max_horizontal(TIME, KNOWN).alias(AT)), pl.col(END) > pl.col(AT))
    line = sorted_by(line.drop(END), AT)
    # Of rows at one instant the latest must come last: it does, since one after a later one goes here.
    line = line.filter(pl.col(TIME) >= pl.col(TIME).cum_max().over(KEY))
    return (line if after is None else line.filter(pl.col(KNOWN) > after)).select(POSITION, KEY, TIME, AT)


def timeless_rows(table: pl.DataFrame, join: Lookup) -> pl.DataFrame:
    """Give the current row of each key in a table without time, the one that was ingested last, with its `KEY` (text)."""
    return _beside(table, timeless_line(table, join, _texts(table, join.dataset.key)))


def timeless_line(table: pl.DataFrame, join: Lookup, key: pl.Series) -> pl.DataFrame:
    """Give the line of `timeless_rows`, by a key of any type: `POSITION` and `KEY`."""
    line = pl.DataFrame({KEY: key}).with_row_index(POSITION).filter(pl.col(KEY).is_not_null())
    if line[KEY].n_unique() == line.height:
        return line
    content = list(carried(join.dataset, schema_text(table)))
    order = _version_order(table, content)
    rows = line.hstack(picked(table, order, line[POSITION]))
    rows = rows.sort(order, nulls_last=False) if order else rows
    return rows.unique(KEY, keep="last", maintain_order=True).select(POSITION, KEY)


def _texts(table: pl.DataFrame, by: Sequence[str]) -> pl.Series:
    return table.select(key_expr(by).alias(KEY))[KEY]


def _kept(line: pl.DataFrame, which: pl.Expr) -> pl.DataFrame:
    """Filter, without a copy where nothing goes."""
    mask = line.select(which.alias("m"))["m"]
    return line if mask.all() else line.filter(mask)


def _beside(table: pl.DataFrame, line: pl.DataFrame) -> pl.DataFrame:
    return table[line[POSITION]].hstack(line.drop(POSITION))


def _epoch(table: pl.DataFrame, column: str | None) -> pl.Expr:
    if column is None or column not in table.columns:
        raise DataError(
            f"a table has no column '{column}'", next="declare time= and known_at= as the columns are named", column=column
        )
    if not isinstance(table.schema[column], pl.Datetime):
        raise DataError(
            f"column '{column}' is {table.schema[column]}, expected a datetime", next="store times as datetimes", column=column
        )
    return pl.col(column).dt.epoch("us")


def _available(table: pl.DataFrame, dataset: Dataset) -> pl.Expr:
    known = _epoch(table, dataset.available)
    if LIVE not in table.columns:
        return known
    ingested = _epoch(table, INGESTED)
    # Null when either is: a row that was never known must not become known by being ingested (max skips nulls).
    later = pl.when(ingested > known).then(ingested).when(ingested <= known).then(known)
    return pl.when(pl.col(LIVE).fill_null(False)).then(later).otherwise(known)


def _version_order(table: pl.DataFrame, content: Sequence[str]) -> list[str]:
    """List the columns by which a row's versions follow each other, but for availability."""
    first = [c for c in (INGESTED, BATCH) if c in table.columns]
    # By content last, so that the choice among equals does not depend on the order of rows.
    return first + sorted(c for c in content if c not in first and not table.schema[c].is_nested())


def _ended(line: pl.DataFrame, table: pl.DataFrame, dataset: Dataset, content: Sequence[str]) -> pl.DataFrame:
    """Add `END` to a line sorted by `TIME`, and leave out versions that never held."""
    never = pl.lit(_NEVER, dtype=pl.Int64).alias(END)
    if not dataset.key:
        return line.with_columns(never)
    # Versions share their time, so they stand side by side.
    same = pl.col(TIME) == pl.col(TIME).shift()
    tied = _kept(line, (same | same.shift(-1)).fill_null(False))
    names = [f"__id{i}" for i in range(len(dataset.key))]
    keys = table.select(pl.col(c).alias(n) for c, n in zip(dataset.key, names, strict=True))
    identity = pl.DataFrame([*keys[tied[POSITION]], tied[TIME]])
    # Most tables hold each row once, which a count of hashes shows in a fraction of the time that grouping takes; equal
    # hashes of different rows only mean that the longer way is gone.
    mark = identity.select(reduce(xor, (pl.col(c).hash(seed=i) for i, c in enumerate(identity.columns)))).to_series()
    if mark.n_unique() == tied.height:
        return line.with_columns(never)
    named = identity.select(pl.all_horizontal(_has_text(pl.col(n), d) for n, d in identity.drop(TIME).schema.items()))
    double = mark.is_duplicated() & named.to_series()
    versions = tied.filter(double).hstack(identity.filter(double).drop(TIME))
    single = line.join(versions.select(POSITION), on=POSITION, how="anti")
    order = _version_order(table, content)
    versions = versions.hstack(picked(table, order, versions[POSITION]).select(pl.all().name.prefix("__by.")))
    first = sum(c in (INGESTED, BATCH) for c in order)
    order = [f"__by.{c}" for c in order]
    versions = versions.sort(*order[:first], KNOWN, *order[first:], nulls_last=False)
    ends = pl.col(KNOWN).shift(-1).cum_min(reverse=True).over(*names, TIME).fill_null(_NEVER).alias(END)
    versions = versions.with_columns(ends).filter(pl.col(END) > pl.col(KNOWN))
    return sorted_by(pl.concat([single.with_columns(never), versions.select(*line.columns, END)]), TIME)


def _has_text(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Tell where a part of a key has a text: neither null nor NaN."""
    return column.is_not_null() & column.is_not_nan() if dtype.is_float() else column.is_not_null()
