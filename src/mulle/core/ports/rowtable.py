"""A table outside of Mulle that takes rows by chunks, each of them once."""

from __future__ import annotations

from typing import Protocol

import polars as pl

__all__ = ["RowTable"]


class RowTable(Protocol):
    """Takes a batch job's answers."""

    def put(self, rows: pl.DataFrame, *, batch: str, chunk: int) -> None:
        """Write a chunk's rows with ``batch`` and ``chunk`` beside them, in the place of what an earlier try of it wrote.

        Parameters
        ----------
        rows : polars.DataFrame
        batch : str
            The job's id.
        chunk : int

        Raises
        ------
        DataError
            When the table does not take them.
        Unavailable
            When the database is away; nothing of the chunk was written.
        """
        ...
