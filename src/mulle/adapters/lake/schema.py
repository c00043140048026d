"""Rows in the types that a Delta table keeps: what loses nothing is converted, the rest is refused by name."""

from __future__ import annotations

import polars as pl
from deltalake import DeltaTable

from mulle.core.errors import DataError

__all__ = ["conform", "stored_type"]

_WIDER: dict[pl.DataType, pl.DataType] = {
    pl.UInt8(): pl.Int16(),
    pl.UInt16(): pl.Int32(),
    pl.UInt32(): pl.Int64(),
    pl.UInt64(): pl.Int64(),
    pl.Int128(): pl.Int64(),
}
_ORDER: tuple[pl.DataType, ...] = (pl.Int8(), pl.Int16(), pl.Int32(), pl.Int64(), pl.Float32(), pl.Float64())
_REFUSED = (pl.Time, pl.Duration, pl.Object, pl.Unknown)


def conform(rows: pl.LazyFrame, table: DeltaTable | None, address: str) -> pl.LazyFrame:
    """Convert rows to what a table keeps.

    Parameters
    ----------
    rows : polars.LazyFrame
    table : DeltaTable or None
        None when it is about to be made.
    address : str
        For the error.

    Returns
    -------
    polars.LazyFrame
        Categories are text, unsigned integers the next wider signed ones, instants microseconds; columns that know
        no type (all null) take the table's, or are left out when it has none; the table's other columns are null.
        A value that does not fit shows when the frame is read.

    Raises
    ------
    DataError
        When a column's type conflicts with the table's, or no table can keep it; facts name the ``column``.
    """
    known = {} if table is None else dict(pl.scan_delta(table).collect_schema())
    given = rows.collect_schema()
    chosen = []
    for name, dtype in given.items():
        stored = stored_type(dtype)
        if stored is None:
            raise _conflict(address, name, dtype, "a type that the lake keeps")
        target = known.get(name, stored)
        if target == pl.Null:
            continue
        if stored not in (target, pl.Null()) and not _widens(stored, target):
            raise _conflict(address, name, dtype, str(target))
        chosen.append(pl.col(name).cast(target))
    chosen += [pl.lit(None, dtype).alias(name) for name, dtype in known.items() if name not in given]
    return rows.select(chosen)


def stored_type(dtype: pl.DataType) -> pl.DataType | None:
    """Return the type that the lake keeps a Polars type as, or None when it keeps no such thing.

    Examples
    --------
    >>> stored_type(pl.UInt32()), stored_type(pl.Categorical()), stored_type(pl.Duration())
    (Int64, String, None)
    """
    if isinstance(dtype, _REFUSED):
        return None
    if isinstance(dtype, (pl.Categorical, pl.Enum)):
        return pl.String()
    if isinstance(dtype, pl.Datetime):
        return pl.Datetime("us", "UTC" if dtype.time_zone else None)
    return _WIDER.get(dtype, dtype)


def _widens(given: pl.DataType, kept: pl.DataType) -> bool:
    return given in _ORDER and kept in _ORDER and _ORDER.index(given) <= _ORDER.index(kept)


def _conflict(address: str, column: str, found: pl.DataType, expected: str) -> DataError:
    return DataError(
        f"column '{column}' is {found}, and {address} keeps {expected}",
        next="convert the column, or give it another name",
        column=column,
        found=str(found),
        expected=expected,
    )
