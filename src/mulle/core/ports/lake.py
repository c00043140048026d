"""The lake: versioned tables of data and logs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import polars as pl

__all__ = ["Lake"]


class Lake(Protocol):
    """Versioned tables with atomic, idempotent appends. Table names are paths such as ``data/flights``."""

    def append(self, table: str, rows: pl.DataFrame, *, application: str, sequence: int, partition_by: Sequence[str] = ()) -> int:
        """Append rows in one transaction that carries an application id and a sequence number.

        Parameters
        ----------
        table : str
        rows : polars.DataFrame
            May add columns that the table has not (older rows read as null).
        application : str
            Who writes: a run, a segment.
        sequence : int
            Rising per application; a sequence that is already applied (this or a higher one) writes nothing.
        partition_by : sequence of str
            Only read when the table is made.

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

    def park(self, name: str, rows: pl.DataFrame) -> str:
        """Write rows outside every table (``staging/...``, ``quarantine/...``), atomically; return the address."""
        ...

    def parked(self, name: str) -> pl.DataFrame:
        """Read parked rows back.

        Raises
        ------
        NotFound
        """
        ...

    def unpark(self, name: str) -> None:
        """Remove parked rows; no error when there are none."""
        ...

    def folder(self) -> Path | None:
        """Return the lake's local folder, or None when it is remote."""
        ...
