"""Rows in a dataset's types: declared ones first, then the published contract, where nothing is lost by it."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from mulle.core.declare.dataset import Dataset
from mulle.core.errors import DataError
from mulle.kernel.bookkeeping import BOOKKEEPING
from mulle.kernel.dtypes import INSTANT, dtype_of, dtype_text

__all__ = ["declared_types", "typed"]


def declared_types(dataset: Dataset) -> dict[str, str]:
    """Give the types that a dataset declares for columns, as records write them.

    Raises
    ------
    DataError
        On a name that is no column type.

    Examples
    --------
    >>> from mulle.core.declare.sources import Files
    >>> declared_types(Dataset("d", Files("d.csv"), schema={"at": "Datetime", "x": "Float64"}))
    {'at': 'Datetime(us, UTC)', 'x': 'Float64'}
    """
    named = {name: "Datetime(us, UTC)" if text == "Datetime" else text for name, text in dataset.schema}
    return {name: dtype_text(dtype_of(text)) for name, text in named.items()}


def typed(rows: pl.DataFrame, dataset: Dataset, schema: Mapping[str, str]) -> pl.DataFrame:
    """Cast rows: times to instants, declared columns to their types, others to the contract's where nothing is lost.

    Parameters
    ----------
    rows : polars.DataFrame
    dataset : Dataset
    schema : mapping
        The published columns and types; empty before the first publish.

    Returns
    -------
    polars.DataFrame
        Columns that the dataset declares optional, or that its labels bring, are added as nulls where they are missing.

    Raises
    ------
    DataError
        When a declared type or time does not fit, or a column has a name that the platform gives its own; names the column.
    """
    if own := BOOKKEEPING.intersection(rows.columns):
        raise DataError(
            f"dataset {dataset.name}: the source has a column '{min(own)}', a name that the platform gives a column of its own",
            next="give the column another name in the source",
            dataset=dataset.name,
            column=min(own),
        )
    times = {c for c in (dataset.time, dataset.known_at) if c is not None}
    declared = declared_types(dataset)
    rows = rows.with_columns(_absent(rows, dataset, schema, declared))
    casts = []
    for name, dtype in rows.schema.items():
        wanted = schema.get(name)
        if name in declared:
            casts.append(_declared(name, dtype, dtype_of(declared[name])))
        elif name in times or isinstance(dtype, pl.Datetime):
            casts.append(_instant(name, dtype))
        elif wanted is not None and wanted != dtype_text(dtype):
            casts.append(_conformed(name, dtype, wanted))
        elif dtype == pl.Null and name in _late(dataset):
            casts.append(pl.col(name).cast(pl.Float64))
        elif dtype == pl.Null or isinstance(dtype, (pl.Categorical, pl.Enum)):
            casts.append(pl.col(name).cast(pl.String))
        elif dtype in (pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64):
            casts.append(pl.col(name).cast(pl.Int64))
    try:
        return rows.with_columns(casts)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"dataset {dataset.name}: a column cannot be read as it is declared: {str(error).splitlines()[0]}",
            next=f"times ({', '.join(sorted(times)) or 'none declared'}) must be datetimes or RFC 3339 text, other columns of "
            "the type that schema= names",
            dataset=dataset.name,
        ) from error


def _absent(rows: pl.DataFrame, dataset: Dataset, schema: Mapping[str, str], declared: Mapping[str, str]) -> list[pl.Expr]:
    late = _late(dataset)
    missing = [name for name in dict.fromkeys((*dataset.optional, *late)) if name not in rows.columns]
    if dataset.known_at is not None:
        declared = {dataset.known_at: dtype_text(INSTANT), **declared}
    kinds = {name: declared.get(name) or schema.get(name) or ("Float64" if name in late else None) for name in missing}
    return [pl.lit(None, dtype_of(kind)).alias(name) for name, kind in kinds.items() if kind is not None]


def _late(dataset: Dataset) -> tuple[str, ...]:
    """Name what labels bring later; until they do, an outcome is taken for a number."""
    return (*dataset.outcome, *((dataset.known_at,) if dataset.known_at else ())) if dataset.labels else ()


def _declared(name: str, dtype: pl.DataType, wanted: pl.DataType) -> pl.Expr:
    if isinstance(wanted, pl.Datetime):
        return _instant(name, dtype)
    return pl.col(name).cast(wanted, strict=True)


def _instant(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if dtype == pl.String:
        return column.str.to_datetime(time_unit="us", time_zone="UTC", strict=True)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone:
        return column.dt.convert_time_zone("UTC").cast(INSTANT)
    if isinstance(dtype, (pl.Datetime, pl.Date, pl.Null)):
        return column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return column.str.to_datetime()  # fails by name: a number is no time


def _conformed(name: str, dtype: pl.DataType, wanted: str) -> pl.Expr:
    # Only what loses nothing; what is left over the check named `schema` refuses.
    column = pl.col(name)
    try:
        target = dtype_of(wanted)
    except DataError:
        return column
    widens = (dtype.is_integer() and target.is_numeric()) or (dtype.is_float() and target.is_float())
    as_text = isinstance(dtype, (pl.Categorical, pl.Enum)) and target == pl.String
    if dtype == pl.Null or widens or as_text:
        return column.cast(target)
    return column
