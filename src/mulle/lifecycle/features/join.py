"""The point-in-time join: each row gets what was available at its own time, for training, batch and evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

import polars as pl

from mulle.core.clock import EPOCH
from mulle.core.declare.features import AsOf, Features, History, Join, Lookup
from mulle.core.errors import DataError
from mulle.kernel.bookkeeping import BATCH, INGESTED, LIVE
from mulle.kernel.dtypes import INSTANT, dtype_text, schema_text
from mulle.kernel.keys import shared_keys
from mulle.lifecycle.features.specs import history_columns, join_specs
from mulle.lifecycle.features.timeline import (
    AT,
    KEY,
    POSITION,
    TIME,
    asof_line,
    carried,
    picked,
    plain,
    span_us,
    timeless_line,
)
from mulle.lifecycle.features.windows import TICK, history_values, sources_of, tick_of

__all__ = ["join_offline", "join_specs"]

_ROW, _NOW = "__row", "__now"


def join_offline(rows: pl.DataFrame, features: Features, tables: Mapping[str, pl.DataFrame | pl.LazyFrame]) -> pl.DataFrame:
    """Add every joined column (``join.column``) to rows, as it was known at each row's own time.

    Parameters
    ----------
    rows : polars.DataFrame
        The features' dataset; in any order.
    features : Features
        Its joins are made in their order, so that one may be on a column that an earlier one brought.
    tables : mapping
        Dataset name to its rows, superseded versions of them included, in any order. Of a lazy frame only the columns
        and the span that the join needs are read. A row is available from its `known_at`, or from the later of that and
        ``_ingested_at`` where ``_live`` is true.

    Returns
    -------
    polars.DataFrame
        Same height and order. A null in key or time gives nulls.

    Raises
    ------
    DataError
        When a table or a column is missing, or a history's expression fails on the rows; names the join.
    DeclarationError
        When a history's value is no aggregate; names join and value.
    """
    now = rows.select(_time_of(rows, features).alias(_NOW)).to_series()
    now = now if len(now) == rows.height else now.new_from_index(0, rows.height)
    for name, join in features.joins:
        if join.dataset.name not in tables:
            raise DataError(f"join '{name}': no rows of dataset '{join.dataset.name}' were given", next="ingest it first")
        asked = _columns(rows, join.on, f"join '{name}': the rows have")
        table = _needed(tables[join.dataset.name], join, now)
        if isinstance(join, History):
            history_columns(name, join, table)
        try:
            found = _joined(asked, now, join, table)
        except pl.exceptions.PolarsError as error:  # an expression that only some values break
            words = f"join '{name}' of dataset {join.dataset.name}: {str(error).splitlines()[0]}"
            raise DataError(words, next="mend the rows, or the history's values") from error
        rows = rows.hstack(found.select(pl.all().name.prefix(f"{name}.")))
    return rows


def _time_of(rows: pl.DataFrame, features: Features) -> pl.Expr:
    time = features.dataset.time
    timed = [n for n, j in features.joins if not isinstance(j, Lookup) or j.dataset.time]
    if time is None and timed:
        raise DataError(
            f"{features.name}: join '{timed[0]}' is in time, and dataset {features.dataset.name} declares none",
            next="declare time= on the dataset",
        )
    if time is None:
        return pl.lit(None, dtype=pl.Int64)
    if not isinstance(rows.schema.get(time), pl.Datetime):
        raise DataError(f"{features.name}: rows have no datetime column '{time}'", next="store times as datetimes", column=time)
    return pl.col(time).dt.epoch("us")


def _columns(frame: pl.DataFrame, names: Sequence[str], what: str) -> pl.DataFrame:
    missing = [c for c in names if c not in frame.columns]
    if missing:
        raise DataError(f"{what} no column '{missing[0]}'", next=f"columns: {', '.join(frame.columns)}", column=missing[0])
    return frame.select(names)


def _needed(table: pl.DataFrame | pl.LazyFrame, join: Join, now: pl.Series) -> pl.DataFrame:
    """Read the columns that a join uses, and of a lazy frame only rows that anybody may have known by the last row's time."""
    if isinstance(table, pl.DataFrame):
        return table
    schema, dataset = table.collect_schema(), join.dataset
    if isinstance(join, History):
        used = {*sources_of(join, schema.names()), *join.by}
    else:
        used = set(carried(dataset, {c: dtype_text(d) for c, d in schema.items()}))
    used |= {*dataset.key, dataset.time or "", dataset.available or "", INGESTED, BATCH, LIVE}
    last = now.max()
    if isinstance(last, int) and dataset.available and schema.get(dataset.available) == INSTANT:
        table = table.filter(pl.col(dataset.available) <= EPOCH + timedelta(microseconds=last))
    # A filtered scan leaves its columns cut at different rows, which every later step would mend anew.
    return table.select(c for c in schema.names() if c in used).collect().rechunk()


def _joined(asked: pl.DataFrame, now: pl.Series, join: Join, table: pl.DataFrame) -> pl.DataFrame:
    by = join.by if isinstance(join, History) else join.dataset.key
    left, right = shared_keys(asked, _columns(table, by, f"dataset {join.dataset.name} has"))
    rows = pl.DataFrame({KEY: left, _NOW: now}).with_row_index(_ROW)
    if isinstance(join, History):
        return _history(rows, join, table, right)
    if isinstance(join, Lookup) and not join.dataset.time:
        position = _lookup(rows, join, table, right)
    else:
        position = _asof(rows, join, table, right)
    columns = carried(join.dataset, schema_text(table))
    # Columns are picked last, and only for the rows that ask: copying them along costs more than the join itself.
    return picked(table, list(columns), position).select(plain(columns))


def _lookup(rows: pl.DataFrame, join: Lookup, table: pl.DataFrame, key: pl.Series) -> pl.Series:
    line = timeless_line(table, join, key)
    return rows.join(line, on=KEY, how="left", maintain_order="left")[POSITION]


def _asof(rows: pl.DataFrame, join: AsOf | Lookup, table: pl.DataFrame, key: pl.Series) -> pl.Series:
    last = rows[_NOW].max()
    events = asof_line(table, join, key, until=last if isinstance(last, int) else None).select(KEY, AT, TIME, POSITION)
    timed = rows if rows[_NOW].is_sorted() else rows.sort(_NOW)
    found = timed.join_asof(events, left_on=_NOW, right_on=AT, by=KEY, strategy="backward", check_sortedness=False)
    if isinstance(join, AsOf):
        fresh = pl.col(_NOW) - pl.col(TIME) <= span_us(join.within)
        found = found.with_columns(pl.when(fresh).then(POSITION).alias(POSITION))
    return pl.repeat(None, rows.height, dtype=found.schema[POSITION], eager=True).scatter(found[_ROW], found[POSITION])


def _history(rows: pl.DataFrame, join: History, table: pl.DataFrame, key: pl.Series) -> pl.DataFrame:
    ticked = rows.with_columns(tick_of(pl.col(_NOW), span_us(join.every)).alias(TICK))
    values = history_values(table, join, ticked.select(KEY, TICK).drop_nulls().unique(), key=key)
    shape = {n: dtype_text(d) for n, d in values.schema.items() if n not in (KEY, TICK)}
    values = values.select(KEY, TICK, *plain(shape))
    return ticked.join(values, on=[KEY, TICK], how="left", maintain_order="left").select(list(shape))
