"""A source of rows for a dataset."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

import polars as pl

from mulle.core.records.base import Json

__all__ = ["Batch", "PartedReader", "SourceReader"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows not read before, and the positions to record once they are published.

    Attributes
    ----------
    pieces : iterable of polars.DataFrame
        The rows, in order; all pieces have the same columns and types. Read once: reading may fail like `read` itself.
    positions : dict
        Opaque to all but the source; the next read starts from them.
    origin : str
        Where the rows came from, for people.
    counted : int or None
        How many rows the source itself says these are, where it can count without reading them.
    repeats : polars.Expr or None
        Which published rows may be among these again; those that equal one in every column are left out.
    parts : sequence of str
        What of this can be read and judged by itself (see `PartedReader`), in order; empty where it is one thing.
    refused : dict or None
        The positions to record instead when the rows are turned away; None for the same ones.
    """

    pieces: Iterable[pl.DataFrame]
    positions: Json
    origin: str
    counted: int | None = None
    repeats: pl.Expr | None = None
    parts: Sequence[str] = ()
    refused: Json | None = None

    def frame(self) -> pl.DataFrame:
        """Read all pieces into one frame."""
        return pl.concat(list(self.pieces))


class SourceReader(Protocol):
    """Reads what is new."""

    def read(self, positions: Json, until: datetime | None = None) -> Batch | None:
        """Return rows after `positions`, or None when there is nothing new.

        Parameters
        ----------
        positions : dict
            What the last published version recorded; empty at first.
        until : datetime, optional
            On a replay clock: only rows known by then. Sources that cannot tell ignore it.

        Raises
        ------
        DataError
            When what is there cannot be read; names it.
        Unavailable
            When the source is away.
        """
        ...


@runtime_checkable
class PartedReader(SourceReader, Protocol):
    """A source of parts, such as files: when one of them fails its checks, the others can be published."""

    def only(self, parts: Collection[str]) -> SourceReader:
        """Give a reader of some parts alone; its positions hold those of the others too, as they were."""
        ...
