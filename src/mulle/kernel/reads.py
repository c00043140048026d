"""Which columns a feature function reads, as Polars' own projection pushdown sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import polars as pl
from polars.io.plugins import register_io_source

from mulle.core.errors import MulleError
from mulle.kernel.dtypes import dtype_of

__all__ = ["columns_read", "only_from"]


def columns_read(
    transform: Callable[[pl.LazyFrame], pl.LazyFrame], schema: Mapping[str, str], features: Sequence[str]
) -> dict[str, list[str]]:
    """List the columns that each feature is made from.

    Parameters
    ----------
    transform : callable
        From a lazy frame to a lazy frame.
    schema : mapping
        Input and joined columns to dtype text.
    features : sequence of str

    Returns
    -------
    dict
        Feature to columns; all of them where the function cannot be looked into. Empty when it fails on an empty frame.

    Examples
    --------
    >>> columns_read(lambda rows: rows.select(z=pl.col("x") * 2), {"x": "Int64", "y": "Int64"}, ["z"])
    {'z': ['x']}
    """
    types = {name: dtype_of(text) for name, text in schema.items()}
    asked: list[str] = []

    def source(with_columns: list[str] | None, *_: object) -> Iterator[pl.DataFrame]:
        asked.extend(with_columns if with_columns is not None else types)
        yield pl.DataFrame(schema=types).select(with_columns or pl.all())

    found = {}
    try:
        for name in features:
            asked.clear()
            transform(register_io_source(source, schema=types)).select(name).collect()
            found[name] = list(dict.fromkeys(asked))
    except (MulleError, pl.exceptions.PolarsError):
        return {}
    return found


def only_from(read: Mapping[str, Sequence[str]], column: str) -> list[str]:
    """List the features that are made from one column and nothing else.

    Parameters
    ----------
    read : mapping
        What `columns_read` gave.
    column : str

    Examples
    --------
    >>> only_from({"hour": ["at"], "late": ["at", "due"], "one": []}, "at")
    ['hour']
    """
    return [name for name, columns in read.items() if set(columns) == {column}]
