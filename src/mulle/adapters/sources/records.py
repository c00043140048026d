"""Turns Python values (a database's, a JSON answer's) into frames: each column of one kind, times in UTC."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import orjson
import polars as pl

from mulle.core.errors import DataError

__all__ = ["frame_of"]

_INSTANT = pl.Datetime("us", "UTC")
_KINDS: tuple[tuple[frozenset[type], pl.DataType], ...] = (
    (frozenset({bool}), pl.Boolean()),
    (frozenset({int}), pl.Int64()),
    (frozenset({int, float, Decimal}), pl.Float64()),
    (frozenset({str, uuid.UUID}), pl.String()),
    (frozenset({date}), pl.Date()),
    (frozenset({datetime}), _INSTANT),
    (frozenset({time}), pl.Time()),
    (frozenset({timedelta}), pl.Duration("us")),
    (frozenset({bytes, bytearray, memoryview}), pl.Binary()),
)


def frame_of(columns: Mapping[str, Sequence[Any]], name: str) -> pl.DataFrame:
    """Build a frame; decimals become floats, times without a zone are UTC, objects of a JSON answer become text.

    Parameters
    ----------
    columns : mapping of str to sequence
        Column to its values, None for null.
    name : str
        The source, for messages.

    Raises
    ------
    DataError
        When a column holds values of several kinds, or a number above 64 bits; names it.

    Examples
    --------
    >>> frame_of({"x": [None, Decimal("1.5"), 2]}, "orders")["x"].to_list()
    [None, 1.5, 2.0]
    """
    return pl.DataFrame([_column(column, values, name) for column, values in columns.items()])


def _column(column: str, values: Sequence[Any], name: str) -> pl.Series:
    found = {type(v) for v in values} - {type(None)}
    if not found:
        return pl.Series(column, values, dtype=pl.Null)
    if found <= {dict, list, tuple}:
        return pl.Series(column, [None if v is None else orjson.dumps(v, default=str).decode() for v in values], dtype=pl.String)
    dtype = next((t for kinds, t in _KINDS if found <= kinds), None)
    if dtype is None:
        kinds = ", ".join(sorted(t.__name__ for t in found))
        raise DataError(f"{name}: column '{column}' holds {kinds}", next="give it one kind of value", column=column)
    try:
        return pl.Series(column, _plain(values, found, dtype), dtype=dtype)
    except (pl.exceptions.PolarsError, OverflowError, TypeError, ValueError) as error:
        said = f"{name}: column '{column}' holds a value that does not fit {dtype}: {error}"
        raise DataError(said, next="cast it in the query, or mend it", column=column) from error


def _plain(values: Sequence[Any], found: set[type], dtype: pl.DataType) -> Sequence[Any]:
    if Decimal in found:
        return [None if v is None else float(v) for v in values]
    if uuid.UUID in found:
        return [None if v is None else str(v) for v in values]
    if dtype == _INSTANT:
        return [v if v is None else v.replace(tzinfo=UTC) if v.tzinfo is None else v.astimezone(UTC) for v in values]
    return [None if v is None else bytes(v) for v in values] if dtype == pl.Binary else values
