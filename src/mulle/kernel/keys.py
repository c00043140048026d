"""One canonical text per key, the same from Python values and from columns; joins and the online store meet on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime

import polars as pl

from mulle.core.clock import rfc3339

__all__ = ["key_expr", "key_text", "shared_keys"]

_EXACT = 2.0**53


def key_text(values: Sequence[object]) -> str | None:
    """Write the values of a key as one text.

    Parameters
    ----------
    values : sequence
        Text, whole numbers, booleans, floats, dates or datetimes (UTC when they have no zone).

    Returns
    -------
    str or None
        None when any value is null or NaN. One value is its own text; several are joined by ``|``, with ``|`` and
        backslash escaped, so that no two keys share a text. Whole floats read as whole numbers: 1.0 and 1 are one key.

    Examples
    --------
    >>> key_text(["JFK", 1]), key_text([2.0]), key_text(["JFK", None])
    ('JFK|1', '2', None)
    """
    if len(values) == 1:
        return _text(values[0])
    texts = [_text(v) for v in values]
    return "|".join([_escape(t) for t in texts if t is not None]) if None not in texts else None


def key_expr(columns: Sequence[str]) -> pl.Expr:
    """Give the expression that writes a key's columns as `key_text` does.

    Parameters
    ----------
    columns : sequence of str
        Of any type that `key_text` takes, categories too.

    Returns
    -------
    polars.Expr
        String; null where any column is null.

    Examples
    --------
    >>> pl.DataFrame({"a": ["x", None], "b": [1, 2]}).select(k=key_expr(["a", "b"]))["k"].to_list()
    ['x|1', None]
    """
    if not columns:
        return pl.lit("")
    if len(columns) == 1:
        return pl.col(columns[0]).map_batches(_series_text, return_dtype=pl.String, is_elementwise=True)
    return pl.struct(columns).map_batches(_struct_text, return_dtype=pl.String, is_elementwise=True)


def shared_keys(left: pl.DataFrame, right: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
    """Give two frames' keys as series whose values are equal exactly where the key texts are.

    Writing texts is the slow part of a join, so columns that compare as their texts do are taken as they are, and several
    of them as the number of the key among those of `left`.

    Parameters
    ----------
    left, right : polars.DataFrame
        The columns of the key, in order; equally many, at least one.

    Returns
    -------
    (polars.Series, polars.Series)
        Of one dtype, as long as the frames; null where any part is null, and in the second one perhaps where `left` does
        not have the key.

    Examples
    --------
    >>> a, b = shared_keys(pl.DataFrame({"x": ["q", "p"], "y": [1, 1]}), pl.DataFrame({"u": ["p", "r"], "v": [1.0, 1.0]}))
    >>> a.to_list(), b.to_list()
    (['q|1', 'p|1'], ['p|1', 'r|1'])
    """
    dtypes = [_comparable(a, b) for a, b in zip(left.dtypes, right.dtypes, strict=True)]
    parts = [d for d in dtypes if d is not None]
    if len(parts) < len(dtypes):
        return left.select(key_expr(left.columns).alias("k"))["k"], right.select(key_expr(right.columns).alias("k"))["k"]
    names = [str(i) for i in range(len(parts))]
    left, right = (pl.DataFrame([s.cast(d).alias(n) for s, d, n in zip(f, parts, names, strict=True)]) for f in (left, right))
    if len(parts) == 1:
        return left["0"], right["0"]
    codes = left.unique().drop_nulls().with_row_index("code")
    coded, found = (f.join(codes, on=names, how="left", maintain_order="left")["code"] for f in (left, right))
    return coded, found


def _comparable(left: pl.DataType, right: pl.DataType) -> pl.DataType | None:
    """Give the type in which two columns' values are equal exactly where their texts are, or None."""
    if left == right and (left.is_integer() or left in (pl.String, pl.Boolean, pl.Date)):
        return left
    narrow = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32)
    return pl.Int64() if left in narrow and right in narrow else None


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() and abs(value) <= _EXACT else repr(value)
    if isinstance(value, datetime):
        return rfc3339(value if value.tzinfo else value.replace(tzinfo=UTC))
    if isinstance(value, date):
        return value.isoformat()
    return str(value)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|")


def _series_text(series: pl.Series) -> pl.Series:
    dtype = series.dtype
    if dtype == pl.String:
        return series
    if dtype.is_integer() or dtype in (pl.Boolean, pl.Categorical, pl.Enum, pl.Null):
        return series.cast(pl.String)
    if dtype == pl.Float32:  # a shorter float prints differently in Python, which knows doubles only
        series = series.cast(pl.Float64)
    return pl.Series(series.name, [_text(v) for v in series.to_list()], dtype=pl.String)


def _struct_text(struct: pl.Series) -> pl.Series:
    frame = struct.struct.unnest()
    texts = [_series_text(s) for s in frame.get_columns()]
    escaped = [t.str.replace_all("\\", "\\\\", literal=True).str.replace_all("|", "\\|", literal=True) for t in texts]
    joined = pl.DataFrame([s.alias(str(i)) for i, s in enumerate(escaped)])
    return joined.select(pl.concat_str(pl.all(), separator="|", ignore_nulls=False)).to_series().alias(struct.name)
