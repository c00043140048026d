"""What was known when: a table's rows as events on a time line, shared by the offline join and the online store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from mulle.core.clock import EPOCH
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.features import AsOf, Lookup
from mulle.core.errors import DataError
from mulle.kernel.dtypes import INSTANT, dtype_of, dtype_text
from mulle.kernel.keys import key_expr

__all__ = [
    "AT",
    "END",
    "EVER",
    "KEY",
    "KNOWN",
    "TIME",
    "asof_events",
    "carried",
    "known_rows",
    "micros",
    "plain",
    "span_us",
    "timeless_rows",
]

KEY, TIME, KNOWN, AT, END = "__key", "__time", "__known", "__at", "__end"
"""Working columns: key text; time, availability, instant of use, end of validity (microseconds since the epoch)."""

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
        All but the key, bookkeeping (``_...``) and nested or binary columns; categories travel as text.
    """
    columns = {}
    for name, text in schema.items():
        if name in dataset.key or name.startswith("_"):
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


def known_rows(
    table: pl.DataFrame,
    dataset: Dataset,
    on: Sequence[str],
    *,
    bulk: bool,
    after: int | None = None,
    until: int | None = None,
    beside: int | None = None,
) -> pl.DataFrame:
    """Give a table's rows with their key, time, availability and the end of their validity.

    Parameters
    ----------
    table : polars.DataFrame
        In any order; several versions of a row (same key and time of the dataset) may be present.
    dataset : Dataset
        With time.
    on : sequence of str
        The table's columns that make the join key.
    bulk : bool
        True: a row is available from its `known_at`; False: from the later of that and ``_ingested_at``.
    after, until : int, optional
        Only rows available in ``(after, until]``, microseconds.
    beside : int, optional
        Only rows that can stand beside one available after this instant: of its time or a later one.

    Returns
    -------
    polars.DataFrame
        The table's columns and the working ones. A row ends when a later version of it is available. Rows without
        key, time or availability are left out, and versions that never held.
    """
    known = _epoch(table, dataset.available)
    if not bulk and "_ingested_at" in table.columns:
        known = _later(known, _epoch(table, "_ingested_at"))
    instants = table.select(known.alias(KNOWN), _epoch(table, dataset.time).alias(TIME))
    chosen = pl.col(KNOWN).is_not_null() & pl.col(TIME).is_not_null()
    if after is not None:
        chosen &= pl.col(KNOWN) > after
    if until is not None:
        chosen &= pl.col(KNOWN) <= until
    if beside is not None:
        chosen &= pl.col(TIME) >= pl.col(TIME).filter(chosen & (pl.col(KNOWN) > beside)).min()
    mask = instants.select(chosen.fill_null(False).alias("m"))["m"]
    rows = table.filter(mask).hstack(instants.filter(mask))
    rows = rows.with_columns(key_expr(on).alias(KEY)).filter(pl.col(KEY).is_not_null())
    return _ended(rows, dataset)


def asof_events(
    table: pl.DataFrame, join: AsOf | Lookup, *, bulk: bool, after: int | None = None, until: int | None = None
) -> pl.DataFrame:
    """Give the instants at which the last known row of each key changes.

    A row counts from the later of its time and its availability; one that arrives late, when a row with a later time
    is known already, changes nothing and is left out. So the last event not after t is the row with the latest time
    among those with time <= t and availability <= t.

    Parameters
    ----------
    table : polars.DataFrame
        In any order.
    join : AsOf or Lookup
    bulk : bool
        As in `known_rows`.
    after, until : int, optional
        Only events of rows available in ``(after, until]``, microseconds; older rows still have their say.

    Returns
    -------
    polars.DataFrame
        Sorted by `AT`; one row per key and instant.
    """
    rows = known_rows(table, join.dataset, join.dataset.key, bulk=bulk, until=until, beside=after)
    rows = rows.with_columns(pl.max_horizontal(TIME, KNOWN).alias(AT)).filter(pl.col(END) > pl.col(AT))
    rows = rows.sort(AT, TIME, KNOWN)
    rows = rows.filter(pl.col(TIME) >= pl.col(TIME).cum_max().over(KEY))
    rows = rows.unique([KEY, AT], keep="last", maintain_order=True)
    return rows if after is None else rows.filter(pl.col(KNOWN) > after)


def timeless_rows(table: pl.DataFrame, join: Lookup) -> pl.DataFrame:
    """Give the current row of each key in a table without time: the one that was ingested last."""
    rows = table.with_columns(key_expr(join.dataset.key).alias(KEY)).filter(pl.col(KEY).is_not_null())
    if rows[KEY].is_duplicated().any():
        rows = rows.sort(_version_order(rows), nulls_last=False)
    return rows.unique(KEY, keep="last", maintain_order=True)


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


def _later(known: pl.Expr, ingested: pl.Expr) -> pl.Expr:
    # max_horizontal skips nulls, and a row that was never known must not become known by being ingested.
    return pl.when(known.is_not_null()).then(pl.max_horizontal(known, ingested))


def _version_order(rows: pl.DataFrame) -> list[str]:
    first = [c for c in ("_ingested_at", KNOWN) if c in rows.columns]
    # By content last, so that the choice among equals does not depend on the order of rows.
    rest = sorted(c for c, d in rows.schema.items() if c not in first and not d.is_nested())
    return first + rest


def _ended(rows: pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
    open_end = pl.lit(_NEVER, dtype=pl.Int64).alias(END)
    if not dataset.key:
        return rows.with_columns(open_end)
    identity = pl.struct(key_expr(dataset.key).alias("k"), pl.col(TIME).alias("t"))
    rows = rows.with_columns(identity.alias("__id"))
    double = pl.col("__id").is_duplicated() & pl.col("__id").struct.field("k").is_not_null()
    versions = rows.filter(double)
    if versions.is_empty():
        return rows.drop("__id").with_columns(open_end)
    versions = versions.sort(_version_order(versions.drop("__id")), nulls_last=False)
    ends = pl.col(KNOWN).shift(-1).cum_min(reverse=True).over("__id").fill_null(_NEVER).alias(END)
    versions = versions.with_columns(ends).filter(pl.col(END) > pl.col(KNOWN))
    return pl.concat([rows.filter(~double).with_columns(open_end), versions]).drop("__id")
