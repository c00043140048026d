"""Reading a dataset version back: the rows of that version, the latest of each."""

from __future__ import annotations

import hashlib

import polars as pl

from mulle.core.declare.dataset import Dataset
from mulle.core.ports.lake import Lake
from mulle.core.records.dataset import DatasetVersion

__all__ = ["BATCH", "INGESTED", "content_hash", "identity", "read_version", "table_name"]

INGESTED = "_ingested_at"
"""When the platform took the row in; Datetime(us, UTC)."""

BATCH = "_batch"
"""The batch that brought the row; String."""


def table_name(dataset: str) -> str:
    """Give the lake's table of a dataset.

    Examples
    --------
    >>> table_name("flights")
    'data/flights'
    """
    return f"data/{dataset}"


def identity(dataset: Dataset) -> tuple[str, ...]:
    """Give the columns by which two rows are versions of one row: key and time where both are declared, else none."""
    return (*dataset.key, dataset.time) if dataset.key and dataset.time else ()


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
        With ``_ingested_at`` and ``_batch``. Of rows with the same key and time the one ingested last; rows without key
        or time all count.

    Raises
    ------
    NotFound
        When the lake has no such table or version.
    """
    rows = lake.scan(version.table, version.lake_version)
    columns = identity(dataset)
    if superseded or not columns:
        return rows
    return rows.map_batches(
        lambda frame: _latest(frame, columns), predicate_pushdown=False, projection_pushdown=False, slice_pushdown=False
    )


def _latest(frame: pl.DataFrame, columns: tuple[str, ...]) -> pl.DataFrame:
    # Most tables hold each row once, which a count of hashes shows in a tenth of the time that sorting takes. Equal
    # hashes of different rows only mean that the longer way is gone.
    if frame.select(pl.struct(columns).hash().n_unique()).item() == frame.height:
        return frame
    unnamed = pl.any_horizontal(pl.col(c).is_null() for c in columns)
    last = pl.struct(columns).is_last_distinct()
    return frame.sort(INGESTED, BATCH, maintain_order=True).filter(unnamed | last)


def content_hash(rows: pl.DataFrame) -> str:
    """Hash rows by content; neither the order of columns nor that of rows matters, bookkeeping columns are left out.

    Returns
    -------
    str
        32 hex digits. Each row is written as text of its sorted columns, the rows' digests are summed modulo 2^128.

    Examples
    --------
    >>> a, b = pl.DataFrame({"x": [1, 2], "y": ["p", None]}), pl.DataFrame({"y": [None, "p"], "x": [2, 1]})
    >>> content_hash(a) == content_hash(b)
    True
    """
    names = sorted(c for c in rows.columns if not c.startswith("_"))
    head = hashlib.blake2b(repr([(n, str(rows.schema[n])) for n in names]).encode(), digest_size=16).digest()
    total = int.from_bytes(head, "big")
    for lines in _lines(rows, names):
        for line in lines:
            total += int.from_bytes(hashlib.blake2b(line.encode(), digest_size=16).digest(), "big")
    return f"{total % 2**128:032x}"


def _lines(rows: pl.DataFrame, names: list[str]) -> list[list[str]]:
    if not names or rows.is_empty():
        return []
    texts = [_text(n, rows.schema[n]) for n in names]
    # Unit separators keep "a", "bc" apart from "ab", "c"; the length of each text makes it certain.
    line = pl.concat_str(texts, separator="\x1f")
    return [part.select(line).to_series().to_list() for part in rows.iter_slices(100_000)]


def _text(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if dtype.is_temporal():
        text = column.to_physical().cast(pl.String)
    elif dtype.is_float():
        # Bits, not digits: how a float is printed may change between versions of Polars.
        text = column.cast(pl.Float64).reinterpret(signed=True).cast(pl.String)
    elif dtype in (pl.String, pl.Categorical, pl.Enum):
        text = column.cast(pl.String)
        text = pl.concat_str(text.str.len_bytes(), pl.lit(":"), text)
    elif dtype.is_nested() or dtype == pl.Binary:
        text = pl.struct(name).map_batches(_repr, return_dtype=pl.String)
    else:
        text = column.cast(pl.String)
    return text.fill_null("\x00")


def _repr(series: pl.Series) -> pl.Series:
    return pl.Series(series.name, [repr(v) for v in series.to_list()], dtype=pl.String)
