"""What a database says of its columns' types, as types of ours; used where the values alone do not tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
import sqlalchemy as sa

__all__ = ["described", "reflected", "with_declared"]

_INSTANT = pl.Datetime("us", "UTC")
_KINDS: tuple[tuple[type[sa.types.TypeEngine[Any]], pl.DataType], ...] = (
    (sa.Boolean, pl.Boolean()),
    (sa.Integer, pl.Int64()),
    (sa.Numeric, pl.Float64()),
    (sa.Float, pl.Float64()),
    (sa.DateTime, _INSTANT),
    (sa.Date, pl.Date()),
    (sa.Time, pl.Time()),
    (sa.Interval, pl.Duration("us")),
    (sa.String, pl.String()),
    (sa.Uuid, pl.String()),
    (sa.JSON, pl.String()),
    (sa.LargeBinary, pl.Binary()),
)
# Object identifiers of PostgreSQL's types: https://www.postgresql.org/docs/current/datatype-oid.html, catalog pg_type.
_POSTGRES: dict[int, pl.DataType] = {
    **dict.fromkeys((16,), pl.Boolean()),
    **dict.fromkeys((20, 21, 23), pl.Int64()),
    **dict.fromkeys((700, 701, 1700), pl.Float64()),
    **dict.fromkeys((25, 1042, 1043, 114, 3802, 2950), pl.String()),
    **dict.fromkeys((1114, 1184), _INSTANT),
    1082: pl.Date(),
    1083: pl.Time(),
    1186: pl.Duration("us"),
    17: pl.Binary(),
}


def reflected(table: sa.Table) -> dict[str, pl.DataType]:
    """Give the types of a reflected table; its numerics will come as floats.

    Examples
    --------
    >>> reflected(sa.Table("t", sa.MetaData(), sa.Column("x", sa.Numeric), sa.Column("at", sa.DateTime)))
    {'x': Float64, 'at': Datetime(time_unit='us', time_zone='UTC')}
    """
    found = {}
    for column in table.columns:
        if isinstance(column.type, sa.Numeric):
            column.type.asdecimal = False
        dtype = next((d for kind, d in _KINDS if isinstance(column.type, kind)), None)
        if dtype is not None:
            found[column.name] = dtype
    return found


def described(dialect: str, result: sa.CursorResult[Any]) -> dict[str, pl.DataType]:
    """Give the types that the driver tells of a query's columns; empty where it does not."""
    if dialect != "postgresql" or result.cursor is None:
        return {}
    return {c[0]: _POSTGRES[c[1]] for c in result.cursor.description or () if c[1] in _POSTGRES}


def with_declared(frame: pl.DataFrame, types: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Give columns without a value their declared type, and integers among floats theirs.

    Examples
    --------
    >>> with_declared(pl.DataFrame({"x": [1], "y": [None]}), {"x": pl.Float64(), "y": pl.String()}).dtypes
    [Float64, String]
    """
    casts = []
    for name, dtype in frame.schema.items():
        wanted = types.get(name)
        if wanted is not None and (dtype == pl.Null or (dtype == pl.Int64 and wanted in (pl.Float64, pl.Boolean))):
            casts.append(pl.col(name).cast(wanted))
    return frame.with_columns(casts)
