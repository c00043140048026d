"""Columns in numbers: what kind each is, how it is spread, what is missing together, what lies far out."""

from __future__ import annotations

import math

import polars as pl

from mulle.core.records.base import Json
from mulle.core.records.exploration import ColumnProfile, MissingPattern, Outliers
from mulle.kernel.bookkeeping import data_columns
from mulle.kernel.dtypes import INSTANT, dtype_text
from mulle.lifecycle.data.cells import plain

__all__ = [
    "FENCE", "QUANTILES", "kind_of", "missing_patterns", "outliers", "profile", "readable", "texts",
]  # fmt: skip

FENCE = 3.0
"""Interquartile ranges from the quartiles to the outer fences."""

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)

_TOP = 10
_PATTERNS = 12
_TOGETHER = 60
_EXAMPLES = 6


def readable(rows: pl.DataFrame) -> pl.DataFrame:
    """Give the data columns in the few types that statistics need.

    Parameters
    ----------
    rows : polars.DataFrame
        Any types.

    Returns
    -------
    polars.DataFrame
        Integers and floats as they are, with NaN as null; decimals and durations (in seconds) as Float64; dates and
        times of day with date as instants in UTC; truth values; all else as String.

    Examples
    --------
    >>> readable(pl.DataFrame({"a": [[1], None], "b": [1.0, float("nan")]})).rows()
    [('[1]', 1.0), (None, None)]
    """
    return pl.DataFrame({name: _readable(rows[name]) for name in data_columns(rows.columns)})


def kind_of(values: pl.Series) -> str:
    """Give how a readable column is looked at: ``number``, ``time`` or ``category``.

    Examples
    --------
    >>> kind_of(pl.Series([1.5])), kind_of(pl.Series([True]))
    ('number', 'category')
    """
    return "number" if values.dtype.is_numeric() else "time" if values.dtype.is_temporal() else "category"


def profile(rows: pl.DataFrame) -> tuple[ColumnProfile, ...]:
    """Describe every data column.

    Parameters
    ----------
    rows : polars.DataFrame

    Returns
    -------
    tuple of ColumnProfile
        In the table's order.

    Examples
    --------
    >>> profile(pl.DataFrame({"x": [1.0, 3.0, None]}))[0].mean
    2.0
    """
    seen = readable(rows)
    distinct = seen.select(pl.all().n_unique()).row(0) if seen.width else ()
    return tuple(
        _profile(seen[name], dtype_text(rows.schema[name]), count - bool(seen[name].null_count()))
        for name, count in zip(seen.columns, distinct, strict=True)
    )


def missing_patterns(seen: pl.DataFrame) -> tuple[MissingPattern, ...]:
    """Count which columns are missing together.

    Parameters
    ----------
    seen : polars.DataFrame
        What `readable` gave. Of more than 60 columns with missing values the 60 with the most are looked at.

    Returns
    -------
    tuple of MissingPattern
        The twelve most frequent, largest first; rows without a missing value are one of them.

    Examples
    --------
    >>> [(p.columns, p.rows) for p in missing_patterns(pl.DataFrame({"a": [None, None, 1], "b": [None, None, 2]}))]
    [(('a', 'b'), 2), ((), 1)]
    """
    if seen.is_empty():
        return ()
    holes = sorted((c for c in seen.columns if seen[c].null_count()), key=lambda c: -seen[c].null_count())[:_TOGETHER]
    if not holes:
        return (MissingPattern(columns=(), rows=seen.height),)
    named = {f"c{at}": pl.col(name).is_null() for at, name in enumerate(holes)}
    counted = seen.lazy().select(**named).group_by(list(named)).agg(rows=pl.len()).collect()
    ordered = counted.sort(["rows", *named], descending=[True] + [False] * len(named)).head(_PATTERNS)
    return tuple(
        MissingPattern(columns=tuple(name for name, gone in zip(holes, flags, strict=True) if gone), rows=count)
        for *flags, count in ordered.select(*named, "rows").iter_rows()
    )


def outliers(seen: pl.DataFrame) -> tuple[Outliers, ...]:
    """Find values that are far out: beyond three interquartile ranges from the quartiles.

    The outer fences of Tukey, Exploratory Data Analysis (1977), section 2D. Where both quartiles are one value, every
    other value would be beyond them; such a column is told and not judged.

    Parameters
    ----------
    seen : polars.DataFrame
        What `readable` gave.

    Returns
    -------
    tuple of Outliers
        One per column of numbers with values; the largest share first.

    Examples
    --------
    >>> found = outliers(pl.DataFrame({"x": [1.0, 2.0, 3.0, 4.0, 99.0]}))[0]
    >>> found.low, found.high, found.above, found.examples
    (-4.0, 10.0, 1, (99.0,))
    """
    found = [told for name in seen.columns if (told := _outliers(seen[name])) is not None]
    return tuple(sorted(found, key=lambda o: (-(o.below + o.above) / o.values, o.column)))


def texts(values: pl.Series) -> pl.Series:
    """Give values of any type as text, null where they are null; equal values give equal texts.

    Examples
    --------
    >>> texts(pl.Series([{"a": 1}, None])).to_list()
    ["{'a': 1}", None]
    """
    if values.dtype.is_nested() or values.dtype in (pl.Binary, pl.Object):
        written = [None if v is None else repr(v) for v in values.to_list()]
        return pl.Series(values.name, written, dtype=pl.String)
    return values.cast(pl.String)


def _readable(values: pl.Series) -> pl.Series:
    dtype = values.dtype
    if dtype.is_float():
        return values.fill_nan(None)
    if dtype.is_integer() or dtype == pl.Boolean:
        return values
    if dtype.is_decimal():
        return values.cast(pl.Float64)
    if isinstance(dtype, pl.Duration):
        return values.dt.total_microseconds().cast(pl.Float64) / 1e6
    if isinstance(dtype, pl.Datetime):
        zoned = values if dtype.time_zone else values.dt.replace_time_zone("UTC")
        return zoned.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
    return values.cast(INSTANT) if dtype == pl.Date else texts(values)


def _profile(values: pl.Series, dtype: str, distinct: int) -> ColumnProfile:
    known = values.drop_nulls()
    kind = kind_of(values)
    mean = deviation = None
    quantiles: Json = {}
    top: tuple[tuple[str, int], ...] = ()
    if kind == "category":
        counts = texts(known).rename("value").value_counts().sort(["count", "value"], descending=[True, False]).head(_TOP)
        top = tuple((str(value), int(count)) for value, count in counts.iter_rows())
        mean = float(known.sum() / len(known)) if values.dtype == pl.Boolean and len(known) else None
    elif len(known):
        ordered = known.sort()
        quantiles = {f"{q:g}": plain(ordered[round(q * (len(ordered) - 1))]) for q in QUANTILES}
        if kind == "number":
            # Summed in the order of values, so that the order of rows does not show in the last digit.
            finite = ordered.filter(ordered.is_finite()) if ordered.dtype.is_float() else ordered
            mean, deviation = _number(finite.mean()), _number(finite.std())
    return ColumnProfile(
        name=values.name, dtype=dtype, kind=kind, rows=len(values), missing=values.null_count(), distinct=distinct,
        mean=mean, deviation=deviation, quantiles=quantiles, top=top,
    )  # fmt: skip


def _outliers(values: pl.Series) -> Outliers | None:
    if not values.dtype.is_numeric():
        return None
    finite = values.drop_nulls().cast(pl.Float64)
    finite = finite.filter(finite.is_finite())
    if not len(finite):
        return None
    first, third = (float(finite.quantile(q, "linear") or 0.0) for q in (0.25, 0.75))
    spread = third - first
    if not spread or not math.isfinite(spread):
        return Outliers(column=values.name, low=None, high=None, below=0, above=0, values=len(finite))
    low, high = first - FENCE * spread, third + FENCE * spread
    below, above = finite.filter(finite < low), finite.filter(finite > high)
    far = [*below.unique().bottom_k(_EXAMPLES), *above.unique().top_k(_EXAMPLES)]
    return Outliers(
        column=values.name, low=low, high=high, below=len(below), above=len(above), values=len(finite),
        examples=tuple(sorted(far, key=lambda v: (-max(low - v, v - high), v))[:_EXAMPLES]),
    )  # fmt: skip


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
