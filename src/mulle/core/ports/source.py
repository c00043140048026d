"""A source of rows for a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import polars as pl

from mulle.core.records.base import Json

__all__ = ["Batch", "SourceReader"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows not read before, and the positions to record once they are published.

    Attributes
    ----------
    rows : polars.DataFrame
    positions : dict
        Opaque to all but the source; the next read starts from them.
    origin : str
        Where the rows came from, for people.
    """

    rows: pl.DataFrame
    positions: Json
    origin: str


class SourceReader(Protocol):
    """Reads what is new."""

    def read(self, positions: Json, until: datetime | None = None) -> Batch | None:
        """Return rows after `positions`, or None when there is nothing new.

        Parameters
        ----------
        positions : dict
            What the last published version recorded; empty at first.
        until : datetime, optional
            On a replay clock: only rows known by then.

        Raises
        ------
        DataError
            When a file cannot be read; names it.
        Unavailable
            When the source is away.
        """
        ...
