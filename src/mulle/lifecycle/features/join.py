"""The point-in-time join: each row gets what was available at its own time, for training, batch and evaluation."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from mulle.core.declare.features import AsOf, Features, History, Join, Lookup
from mulle.core.errors import DataError, DeclarationError
from mulle.core.hashing import hash_json
from mulle.core.records.bundle import JoinSpec
from mulle.kernel.dtypes import dtype_of, dtype_text, schema_text
from mulle.kernel.keys import key_expr
from mulle.lifecycle.features.timeline import AT, KEY, TIME, asof_events, carried, plain, span_us, timeless_rows
from mulle.lifecycle.features.windows import TICK, history_values, tick_of

__all__ = ["join_offline", "join_specs"]

_ROW, _NOW = "__row", "__now"


def join_offline(
    rows: pl.DataFrame, features: Features, tables: Mapping[str, pl.DataFrame], *, bulk: bool = True
) -> pl.DataFrame:
    """Add every joined column (``join.column``) to rows, as it was known at each row's own time.

    Parameters
    ----------
    rows : polars.DataFrame
        The features' dataset; in any order.
    features : Features
    tables : mapping
        Dataset name to its rows; several versions of a row may be present, in any order.
    bulk : bool
        True: a table's row is available from its `known_at`; False: from the later of that and ``_ingested_at``.

    Returns
    -------
    polars.DataFrame
        Same height and order. A null in key or time gives nulls.

    Raises
    ------
    DataError
        When a table or a column is missing.
    """
    working = rows.select(_time_of(rows, features).alias(_NOW), *_key_columns(features)).with_row_index(_ROW)
    joined = []
    for name, join in features.joins:
        if join.dataset.name not in tables:
            raise DataError(f"join '{name}': no rows of dataset '{join.dataset.name}' were given", next="ingest it first")
        left = working.select(_ROW, pl.col(f"__key.{name}").alias(KEY), _NOW)
        found, columns = _joined(left, join, tables[join.dataset.name], bulk)
        found = working.select(_ROW).join(found, on=_ROW, how="left", maintain_order="left")
        joined.append(found.select(pl.col(c).alias(f"{name}.{c}") for c in columns))
    return pl.concat([rows, *joined], how="horizontal")


def join_specs(features: Features, schemas: Mapping[str, Mapping[str, str]]) -> tuple[JoinSpec, ...]:
    """Describe the joins as serving reads them.

    Parameters
    ----------
    features : Features
    schemas : mapping
        Dataset name to its schema (column to dtype text).

    Returns
    -------
    tuple of JoinSpec
        The online table's name carries a hash of the definition, so that a changed definition is another table.

    Raises
    ------
    DeclarationError
        When a history names an unknown column or gives a value that the online store cannot keep.
    """
    specs = []
    for name, join in features.joins:
        schema = dict(schemas[join.dataset.name])
        columns = _history_columns(name, join, schema) if isinstance(join, History) else carried(join.dataset, schema)
        kind = type(join).__name__.lower()
        within = span_us(join.within) if isinstance(join, AsOf) else None
        window = span_us(join.window) if isinstance(join, History) else None
        every = span_us(join.every) if isinstance(join, History) else None
        values = {n: str(e) for n, e in join.values} if isinstance(join, History) else {}
        dataset = join.dataset
        source = [dataset.name, dataset.key, dataset.time, dataset.known_at]
        digest = hash_json([kind, source, join.on, within, window, every, values, columns])[:12]
        specs.append(
            JoinSpec(
                name=name,
                kind=kind,
                dataset=dataset.name,
                table=f"{features.name}.{name}.{digest}",
                on=join.on,
                columns=columns,
                within_us=within,
                window_us=window,
                every_us=every,
            )
        )
    return tuple(specs)


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


def _key_columns(features: Features) -> list[pl.Expr]:
    return [key_expr(join.on).alias(f"__key.{name}") for name, join in features.joins]


def _joined(left: pl.DataFrame, join: Join, table: pl.DataFrame, bulk: bool) -> tuple[pl.DataFrame, list[str]]:
    if isinstance(join, History):
        return _history(left, join, table, bulk), [n for n, _ in join.values]
    columns = carried(join.dataset, schema_text(table))
    if isinstance(join, AsOf) or join.dataset.time:
        return _asof(left, join, table, columns, bulk), list(columns)
    right = timeless_rows(table, join).select(KEY, *plain(columns))
    return left.join(right, on=KEY, how="inner"), list(columns)


def _asof(left: pl.DataFrame, join: AsOf | Lookup, table: pl.DataFrame, columns: dict[str, str], bulk: bool) -> pl.DataFrame:
    events = asof_events(table, join, bulk=bulk).select(KEY, TIME, AT, *plain(columns))
    timed = left.filter(pl.col(KEY).is_not_null() & pl.col(_NOW).is_not_null()).sort(_NOW)
    found = timed.join_asof(events, left_on=_NOW, right_on=AT, by=KEY, strategy="backward", check_sortedness=False)
    if isinstance(join, AsOf):
        return found.filter(pl.col(_NOW) - pl.col(TIME) <= span_us(join.within))
    return found


def _history(left: pl.DataFrame, join: History, table: pl.DataFrame, bulk: bool) -> pl.DataFrame:
    ticked = left.with_columns(tick_of(pl.col(_NOW), span_us(join.every)).alias(TICK)).drop_nulls([KEY, TICK])
    wanted = ticked.select(KEY, TICK).unique()
    values = history_values(table, join, wanted, bulk=bulk)
    shape = {n: dtype_text(d) for n, d in values.schema.items() if n not in (KEY, TICK)}
    return ticked.join(values.select(KEY, TICK, *plain(shape)), on=[KEY, TICK], how="inner")


def _history_columns(name: str, join: History, schema: dict[str, str]) -> dict[str, str]:
    empty = pl.DataFrame(schema={c: dtype_of(t) for c, t in _readable(schema).items()})
    try:
        shape = empty.group_by(pl.lit(1).alias("__one")).agg(e.alias(n) for n, e in join.values).drop("__one").schema
        columns = {n: dtype_text(d) for n, d in shape.items()}
        for text in columns.values():
            dtype_of(text)
    except pl.exceptions.PolarsError as error:
        raise DeclarationError(f"history '{name}': {error}", next=f"columns: {', '.join(schema)}") from error
    except DataError as error:
        raise DeclarationError(f"history '{name}': {error.detail}", next="aggregate to one number or text per key") from error
    return {n: "String" if t == "Categorical" else t for n, t in columns.items()}


def _readable(schema: dict[str, str]) -> dict[str, str]:
    """Leave out the columns of a schema whose type cannot be read back (nested ones)."""
    kept = {}
    for name, text in schema.items():
        try:
            dtype_of(text)
        except DataError:
            continue
        kept[name] = text
    return kept
