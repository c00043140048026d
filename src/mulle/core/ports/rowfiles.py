"""Files of rows that can be read by spans, so that a long job is cut into chunks which any process can do again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import polars as pl

__all__ = ["Broken", "RowFile", "RowFiles", "Rows", "Span"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of one file.

    Attributes
    ----------
    name, path : str
        The file, for people and as it is opened.
    kind : str
        ``parquet``, ``arrow``, ``csv`` or ``jsonl``.
    size, mtime_ns : int
        The file's when the job was planned; another file of the same name is refused.
    start, end : int
        Rows of a columnar file, bytes of a text file.
    row : int
        Number of the first row: counted from 0 in a columnar file, the line (from 1) in a text file.
    rows : int
        How many rows (of a text file: line ends).
    columns : tuple of str
        A CSV's header.
    """

    name: str
    path: str
    kind: str
    size: int
    mtime_ns: int
    start: int
    end: int
    row: int
    rows: int
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFile:
    """A file with its content hash and its spans, in order."""

    name: str
    size: int
    hash: str
    rows: int
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Broken:
    """A row that could not be read at all: its number, why, and the beginning of its text."""

    number: int
    reason: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of a span.

    Attributes
    ----------
    values : polars.DataFrame or sequence of mapping
        JSON lines come as the objects that they are.
    text : bool
        Every value is text, whatever it means (CSV).
    numbers : sequence of int
        Of each row, see `Span.row`.
    broken : sequence of Broken
    """

    values: pl.DataFrame | Sequence[Mapping[str, object]]
    text: bool
    numbers: Sequence[int]
    broken: Sequence[Broken] = ()


class RowFiles(Protocol):
    """Finds files of rows, and reads spans of them in bounded memory."""

    def look(self, pattern: str) -> Sequence[RowFile]:
        """Find the files that a path, glob or folder means, and cut them into spans.

        Raises
        ------
        DataError
            When there is none, or one cannot be read; names it.
        Unavailable
            When the object store is away.
        """
        ...

    def read(self, span: Span, columns: Sequence[str]) -> Rows:
        """Read a span's rows.

        Parameters
        ----------
        columns : sequence of str
            Of a columnar file only these are read; those it has not are left out.

        Raises
        ------
        DataError
            When the file changed since it was found, or cannot be read.
        Unavailable
        """
        ...
