"""The names of column types in records, and the types they stand for; schemas, bundles and joins speak them."""

from __future__ import annotations

import re

import polars as pl

from mulle.core.errors import DataError
from mulle.kernel.bookkeeping import data_columns

__all__ = ["INSTANT", "dtype_of", "dtype_text", "schema_text"]

INSTANT = pl.Datetime("us", "UTC")
"""The one type of instants in our frames."""

_PLAIN: dict[str, pl.DataType] = {
    d.__name__: d()
    for d in (
        pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64, pl.Float32, pl.Float64,
        pl.Boolean, pl.String, pl.Date, pl.Time, pl.Categorical, pl.Binary, pl.Null,
    )
}  # fmt: skip
_TEMPORAL = re.compile(r"(Datetime|Duration)\((ns|us|ms)(?:, ([\w/+-]+))?\)")


def dtype_text(dtype: pl.DataType) -> str:
    """Write a Polars dtype as text for a record.

    Parameters
    ----------
    dtype : polars.DataType

    Returns
    -------
    str
        ``Int64``, ``Datetime(us, UTC)``, ``Duration(us)``; nested types as Polars prints them.

    Examples
    --------
    >>> dtype_text(pl.Datetime("us", "UTC")), dtype_text(pl.Int64())
    ('Datetime(us, UTC)', 'Int64')
    """
    if isinstance(dtype, pl.Datetime):
        return f"Datetime({dtype.time_unit}, {dtype.time_zone})" if dtype.time_zone else f"Datetime({dtype.time_unit})"
    if isinstance(dtype, pl.Duration):
        return f"Duration({dtype.time_unit})"
    return type(dtype).__name__ if type(dtype).__name__ in _PLAIN else str(dtype)


def dtype_of(text: str) -> pl.DataType:
    """Read what `dtype_text` wrote.

    Raises
    ------
    DataError
        On a name that is not a plain type (nested types cannot be read back).

    Examples
    --------
    >>> dtype_of("Datetime(us, UTC)") == INSTANT
    True
    """
    if text in _PLAIN:
        return _PLAIN[text]
    if text == "Datetime(us, UTC)":
        return INSTANT
    found = _TEMPORAL.fullmatch(text)
    if found is None:
        raise DataError(f"'{text}' is not a column type that Mulle reads", next="use numbers, text, booleans or times")
    unit, zone = found.group(2), found.group(3)
    return pl.Datetime(unit, zone) if found.group(1) == "Datetime" else pl.Duration(unit)  # type: ignore[arg-type]


def schema_text(frame: pl.DataFrame | pl.LazyFrame) -> dict[str, str]:
    """Give a frame's columns and types as a record keeps them; bookkeeping columns are left out.

    Examples
    --------
    >>> schema_text(pl.DataFrame({"a": [1], "_batch": ["x"]}))
    {'a': 'Int64'}
    """
    schema = frame.collect_schema()
    return {name: dtype_text(schema[name]) for name in data_columns(schema)}
