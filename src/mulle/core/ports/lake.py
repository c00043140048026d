"""The lake: versioned tables of data and logs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import polars as pl

from mulle.core.records.base import Json

__all__ = ["Lake", "Note", "Vacuum"]


@dataclass(frozen=True, slots=True)
class Note:
    """What a writer left with a commit: its sequence, the table's version it made, and its words."""

    sequence: int
    version: int
    words: Json


class Lake(Protocol):
    """Versioned tables with atomic, idempotent appends. Table names are paths such as ``data/flights``."""

    def append(
        self,
        table: str,
        rows: pl.DataFrame | pl.LazyFrame,
        *,
        application: str,
        sequence: int,
        partition_by: Sequence[str] = (),
        note: Json | None = None,
    ) -> int:
        """Append rows in one transaction that carries an application id and a sequence number.

        Parameters
        ----------
        table : str
        rows : polars.DataFrame or polars.LazyFrame
            May add columns that the table has not (older rows read as null). A lazy frame is written as it is read, in
            bounded memory.
        application : str
            Who writes: a run, a segment.
        sequence : int
            Rising per application; a sequence that is already applied (this or a higher one) writes nothing.
        partition_by : sequence of str
            Only read when the table is made.
        note : dict, optional
            Kept with the commit; see `notes`.

        Returns
        -------
        int
            The table's version after the append.

        Raises
        ------
        Unavailable
            When the store is away or full; nothing was published.
        DataError
            When a column's type conflicts with the table's.
        """
        ...

    def notes(self, table: str, application: str, after: int) -> Sequence[Note]:
        """Return the notes of an application's commits with a sequence above `after`, oldest first."""
        ...

    def replace(self, table: str, rows: pl.LazyFrame, *, application: str, sequence: int, note: Json | None = None) -> int:
        """Make these the table's rows and columns, in one transaction; return its new version.

        Earlier versions stay as they were. The rows may come from the table itself. As in `append`, a sequence that is
        already applied writes nothing.

        Raises
        ------
        NotFound
            When there is no such table.
        DataError
            When a value does not fit its type.
        """
        ...

    def erase(self, table: str, keys: pl.DataFrame) -> int:
        """Remove for good every row that equals a row of `keys` in all of its columns; return how many.

        Files that hold such a row are rewritten and the old ones deleted, so no earlier version can show it. Versions
        before this one are from then on read from the rows that are left: `scan` with such a version gives the table as
        it stands, and callers filter by their own row mark.
        """
        ...

    def compact(self, table: str, *, cluster_by: Sequence[str] = ()) -> int:
        """Put a table's small files together; return how many are read no more. No row and no version changes.

        With `cluster_by` the rows of a partition are also laid out so that those alike in these columns stand together: who
        filters by them reads a part of the file. A partition that is one file already is left alone.

        Every append makes a file, and every read opens them all, so a table that is fed all day becomes slow without it.
        Nothing is done to a table that is not there.
        """
        ...

    def applied(self, table: str, application: str) -> int | None:
        """Return the last sequence applied by an application, or None."""
        ...

    def scan(self, table: str, version: int | None = None) -> pl.LazyFrame:
        """Return a lazy frame of the table, at its last version or at the one asked for.

        Raises
        ------
        NotFound
            When there is no such table or version.
        """
        ...

    def version(self, table: str) -> int | None:
        """Return the table's last version, or None when there is no such table."""
        ...

    def address(self, table: str) -> str:
        """Return the folder or URL of a table, as Spark, Trino or DuckDB would read it."""
        ...

    def park(self, name: str, rows: pl.DataFrame | Iterable[pl.DataFrame]) -> str:
        """Write rows outside every table (``staging/...``, ``quarantine/...``), atomically; return the address.

        Pieces are written as they are read, in bounded memory; an error they raise is raised here.
        """
        ...

    def parked(self, name: str) -> pl.LazyFrame:
        """Give parked rows back.

        Raises
        ------
        NotFound
        """
        ...

    def parkings(self, prefix: str) -> Sequence[str]:
        """List the names of what is parked below a prefix such as ``quarantine/flights``."""
        ...

    def unpark(self, name: str) -> None:
        """Remove parked rows; no error when there are none."""
        ...

    def write_document(self, name: str, words: Json) -> str:
        """Write a small JSON document beside the tables, atomically; return its address."""
        ...

    def read_document(self, name: str) -> Json | None:
        """Read a document back, or None when there is none."""
        ...


class Vacuum(Protocol):
    """Clears out what no version of a table that is needed is read from."""

    def __call__(self, table: str, *, older: timedelta, needed: Sequence[int], dry_run: bool) -> tuple[int, int]:
        """Remove the files of a table that were superseded more than `older` ago and that no needed version is read from.

        Returns
        -------
        tuple
            How many files, and their bytes (0 for a bucket).

        Raises
        ------
        NotFound
            When there is no such table.
        """
        ...
