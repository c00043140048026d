"""Parquet and Arrow files: types and counts come from their metadata, rows are read batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

import polars as pl

from mulle.adapters.sources.objects import Found, Store, unreadable
from mulle.adapters.sources.spool import Portion
from mulle.core.errors import Unavailable

if TYPE_CHECKING:
    from pyarrow import RecordBatch, RecordBatchFileReader, RecordBatchStreamReader

__all__ = ["columnar"]

_ROWS = 131_072


def columnar(store: Store, found: Found, kind: str) -> tuple[Portion, int | None]:
    """Look at a Parquet or Arrow file; give its rows, to be read later, and how many its metadata says there are.

    Raises
    ------
    DataError
        When it is truncated or otherwise unreadable; names it.
    """
    with _told(found), store.open(found) as stream:
        schema, rows = _parquet_facts(stream) if kind == "parquet" else _arrow_facts(stream)
    return Portion(name=found.name, schema=schema, frames=_frames(store, found, kind)), rows


def _frames(store: Store, found: Found, kind: str) -> Iterator[pl.DataFrame]:
    if not store.is_same(found):
        raise _changed(found)
    with _told(found), store.open(found) as stream:
        for batch in _parquet_batches(stream) if kind == "parquet" else _arrow_batches(stream):
            yield _polars(batch)
    if not store.is_same(found):
        raise _changed(found)


def _parquet_facts(stream: BinaryIO) -> tuple[dict[str, pl.DataType], int]:
    from pyarrow.parquet import ParquetFile

    file = ParquetFile(stream)
    return dict(pl.DataFrame(file.schema_arrow.empty_table()).schema), file.metadata.num_rows


def _parquet_batches(stream: BinaryIO) -> Iterator[RecordBatch]:
    from pyarrow.parquet import ParquetFile

    yield from ParquetFile(stream).iter_batches(_ROWS)


def _arrow_facts(stream: BinaryIO) -> tuple[dict[str, pl.DataType], int | None]:
    from pyarrow import RecordBatchFileReader
    from pyarrow.dataset import IpcFileFormat

    reader = _arrow_reader(stream)
    schema = dict(pl.DataFrame(reader.schema.empty_table()).schema)
    if not isinstance(reader, RecordBatchFileReader):
        return schema, None
    return schema, IpcFileFormat().make_fragment(stream).count_rows()


def _arrow_batches(stream: BinaryIO) -> Iterator[RecordBatch]:
    from pyarrow import RecordBatchFileReader

    reader = _arrow_reader(stream)
    if isinstance(reader, RecordBatchFileReader):
        yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
    else:
        yield from reader


def _arrow_reader(stream: BinaryIO) -> RecordBatchFileReader | RecordBatchStreamReader:
    import pyarrow as pa

    magic = stream.read(6)
    stream.seek(0)
    return pa.ipc.open_file(stream) if magic == b"ARROW1" else pa.ipc.open_stream(stream)


def _polars(batch: RecordBatch) -> pl.DataFrame:
    frame = pl.from_arrow(batch)
    assert isinstance(frame, pl.DataFrame)
    return frame


@contextmanager
def _told(found: Found) -> Iterator[None]:
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise unreadable(found, error) from error


def _changed(found: Found) -> Unavailable:
    return Unavailable(f"{found.name}: the file changed while it was read", next="try again", file=found.name)
