"""The content hash of a batch: taken as its rows pass by, so that no row is read twice for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
import polars as pl
import pyarrow as pa

from mulle.kernel.bookkeeping import data_columns

__all__ = ["ContentHash", "content_hash"]

_NAN = np.frombuffer(np.float64(np.nan).tobytes(), dtype=np.uint64)[0]


class ContentHash:
    """Hashes rows piece by piece; how they are cut into pieces and the order of columns do not matter, their order does.

    Each column is hashed as its types, the bytes of its values (a null as zero) and the positions of its nulls.
    Bookkeeping columns are left out.

    Examples
    --------
    >>> whole, halves = ContentHash(), ContentHash()
    >>> whole.update(pl.DataFrame({"x": [1, 2], "y": ["p", None]}))
    >>> halves.update(pl.DataFrame({"y": ["p"], "x": [1]}))
    >>> halves.update(pl.DataFrame({"x": [2], "y": pl.Series([None], dtype=pl.String)}))
    >>> whole.digest() == halves.digest()
    True
    """

    def __init__(self) -> None:
        self.rows = 0
        self._columns: dict[str, _Column] = {}

    def update(self, piece: pl.DataFrame) -> None:
        """Take in the next rows; every piece has the same columns."""
        for name in data_columns(piece.columns):
            self._columns.setdefault(name, _Column(piece.schema[name])).update(piece[name], self.rows)
        self.rows += piece.height

    def digest(self) -> str:
        """Give the hash of what was taken in: 32 hex digits."""
        total = hashlib.sha256(str(self.rows).encode())
        for name, column in sorted(self._columns.items()):
            total.update(repr(name).encode())
            total.update(column.digest())
        return total.hexdigest()[:32]


def content_hash(rows: pl.DataFrame) -> str:
    """Hash a frame by its content; see `ContentHash`.

    Examples
    --------
    >>> len(content_hash(pl.DataFrame({"x": [1.5]})))
    32
    """
    hashed = ContentHash()
    hashed.update(rows)
    return hashed.digest()


class _Column:
    def __init__(self, dtype: pl.DataType) -> None:
        self._parts = [hashlib.sha256(str(dtype).encode()), hashlib.sha256(), hashlib.sha256()]

    def update(self, values: pl.Series, offset: int) -> None:
        if values.null_count():
            missing = values.is_null().arg_true().to_numpy().astype(np.int64) + offset
            self._parts[0].update(missing.data)
        for part, data in zip(self._parts[1:], _bytes(values), strict=False):
            part.update(data)

    def digest(self) -> bytes:
        return b"".join(part.digest() for part in self._parts)


def _bytes(values: pl.Series) -> Iterator[memoryview]:
    dtype = values.dtype
    if dtype.is_float():
        # Bits, not digits: how a float is printed may change between versions of Polars. Every NaN is one NaN.
        floats = values.cast(pl.Float64).fill_null(0.0).to_numpy()
        bits = np.ascontiguousarray(floats).view(np.uint64)
        yield np.where(np.isnan(floats), _NAN, bits).data
    elif dtype.is_temporal() or dtype.is_integer() or dtype == pl.Boolean:
        whole = values.to_physical().cast(pl.Int64, strict=False) if dtype != pl.UInt64 else values.reinterpret(signed=True)
        yield np.ascontiguousarray(whole.fill_null(0).to_numpy()).data
    elif dtype == pl.Null:
        return
    else:
        yield from _texts(values)


def _texts(values: pl.Series) -> Iterator[memoryview]:
    if values.dtype in (pl.String, pl.Categorical, pl.Enum):
        texts = values.cast(pl.String).fill_null("")
    else:
        texts = pl.Series(_reprs(values.to_list()), dtype=pl.String)
    # The length of each text keeps "a", "bc" apart from "ab", "c".
    yield np.ascontiguousarray(texts.str.len_bytes().to_numpy()).data
    array = texts.to_arrow(compat_level=pl.CompatLevel.oldest())
    for chunk in array.chunks if isinstance(array, pa.ChunkedArray) else [array]:
        offsets, data = chunk.buffers()[1:]
        if data is None or not len(chunk):
            continue
        ends = np.frombuffer(offsets, dtype=np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        yield memoryview(data)[ends[0] : ends[-1]]


def _reprs(values: Iterable[object]) -> list[str]:
    return ["" if v is None else repr(v) for v in values]
