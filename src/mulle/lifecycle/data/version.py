"""Reading a dataset version back: the rows of that version, the latest of each."""

from __future__ import annotations

from functools import reduce
from operator import or_

import polars as pl

from mulle.core.declare.dataset import Dataset
from mulle.core.ports.lake import Lake
from mulle.core.records.dataset import DatasetVersion
from mulle.kernel.bookkeeping import BATCH, INGESTED, VERSION

__all__ = ["current", "read_version", "table_name"]


def table_name(dataset: str) -> str:
    """Give the lake's table of a dataset.

    Examples
    --------
    >>> table_name("flights")
    'data/flights'
    """
    return f"data/{dataset}"


def read_version(lake: Lake, dataset: Dataset, version: DatasetVersion, *, superseded: bool = False) -> pl.LazyFrame:
    """Read a version's rows.

    Parameters
    ----------
    lake : Lake
    dataset : Dataset
    version : DatasetVersion
    superseded : bool
        Also give the versions of a row that a later one replaced, so that the past can be asked.

    Returns
    -------
    polars.LazyFrame
        With the bookkeeping columns. Of rows with the same identity (key, and time where one is declared) the one
        ingested last; rows without one all count.

    Raises
    ------
    NotFound
        When the lake has no such table or version.
    """
    rows = lake.scan(version.table, version.lake_version)
    if version.spans and VERSION in rows.collect_schema():
        # After an erasure the lake gives later rows too.
        chosen = [pl.col(VERSION).is_between(first, last) for first, last in version.spans]
        rows = rows.filter(reduce(or_, chosen))
    return rows if superseded else current(rows, dataset)


def current(rows: pl.LazyFrame, dataset: Dataset) -> pl.LazyFrame:
    """Keep the last version of each row: of those with the same identity the one ingested last."""
    columns = dataset.identity
    if not columns:
        return rows
    return rows.map_batches(
        lambda frame: _latest(frame, columns, dataset.known_at),
        predicate_pushdown=False,
        projection_pushdown=False,
        slice_pushdown=False,
    )


def _latest(frame: pl.DataFrame, columns: tuple[str, ...], known_at: str | None) -> pl.DataFrame:
    # Most tables hold each row once, which a count of hashes shows in a tenth of the time that sorting takes. Equal
    # hashes of different rows only mean that the longer way is gone.
    if frame.select(pl.struct(columns).hash().n_unique()).item() == frame.height:
        return frame
    unnamed = pl.any_horizontal(pl.col(c).is_null() for c in columns)
    last = pl.struct(columns).is_last_distinct()
    order = [VERSION] if VERSION in frame.columns else [INGESTED, BATCH]
    if known_at is not None and known_at in frame.columns:
        order.append(known_at)
    return frame.sort(order, nulls_last=False, maintain_order=True).filter(unnamed | last)
