"""Rows that pass through in pieces: from Python's iterators into Polars, and from lazy frames into Arrow readers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import polars as pl
import pyarrow as pa
from polars.io.plugins import register_io_source

__all__ = ["lazy", "record_batches"]

_ROWS = 131_072


def lazy(pieces: Iterable[pl.DataFrame]) -> tuple[pl.LazyFrame, list[Exception]]:
    """Give pieces as a lazy frame that can be read once.

    Returns
    -------
    polars.LazyFrame
    list of Exception
        Filled with what the iterator raised: Polars wraps errors beyond recognition.
    """
    failure: list[Exception] = []
    iterator = iter(pieces)
    first = next(iterator, None)
    if first is None:
        return pl.LazyFrame(), failure

    def source(columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, _: int | None) -> Iterator[pl.DataFrame]:
        try:
            for piece in chain([first], iterator):
                chosen = piece if columns is None else piece.select(columns)
                chosen = chosen if predicate is None else chosen.filter(predicate)
                yield chosen if rows is None else chosen.head(rows)
        except Exception as error:
            failure.append(error)
            raise

    return register_io_source(source, schema=first.schema, is_pure=False), failure


def record_batches(rows: pl.LazyFrame | pl.DataFrame) -> tuple[pa.RecordBatchReader, list[Exception]]:
    """Give rows as a stream of Arrow batches, computed as they are read.

    Returns
    -------
    pyarrow.RecordBatchReader
    list of Exception
        Filled with what reading raised.
    """
    failure: list[Exception] = []
    schema = (rows.head(0).collect() if isinstance(rows, pl.LazyFrame) else rows.head(0)).to_arrow().schema

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            frames = rows.collect_batches(chunk_size=_ROWS) if isinstance(rows, pl.LazyFrame) else rows.iter_slices(_ROWS)
            for frame in _gathered(frames):
                yield from frame.rechunk().to_arrow().cast(schema).to_batches()
        except Exception as error:
            failure.append(error)
            raise

    return pa.RecordBatchReader.from_batches(schema, batches()), failure


def _gathered(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Put small frames together: a table's writer keeps the order within a batch, and not that of batches."""
    waiting: list[pl.DataFrame] = []
    height = 0
    for frame in frames:
        waiting.append(frame)
        height += frame.height
        if height >= _ROWS:
            yield pl.concat(waiting)
            waiting, height = [], 0
    if waiting:
        yield pl.concat(waiting)
