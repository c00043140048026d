"""A Python function as a source: it takes the position it gave last, and gives rows."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import orjson
import polars as pl

from mulle.adapters.sources.spool import Spool, pieces
from mulle.core.declare.sources import Function
from mulle.core.errors import DataError, MulleError
from mulle.core.ports.source import Batch
from mulle.core.records.base import Json

__all__ = ["FunctionReader"]


class FunctionReader:
    """Calls a function for rows; implements `SourceReader`. Positions are ``{"position": what the function gave}``.

    Parameters
    ----------
    source : Function

    Examples
    --------
    >>> def numbers(position):
    ...     start = position.get("next", 0)
    ...     return pl.DataFrame({"x": [start, start + 1]}), {"next": start + 2}
    >>> reader = FunctionReader(Function(numbers))
    >>> reader.read(reader.read({}).positions).frame()["x"].to_list()
    [2, 3]
    """

    def __init__(self, source: Function) -> None:
        self._source = source

    def read(self, positions: Json, until: datetime | None = None) -> Batch | None:  # noqa: ARG002
        """Return the rows the function gives, or None when it gives none.

        Raises
        ------
        DataError
            When it fails, or gives something that is neither rows nor rows and a position; names the function.
        """
        try:
            given = self._source.function(copy.deepcopy(positions.get("position", {})))
            rows, position = _parts(given)
            spool = Spool(self._source.name)
            for frame in _frames(rows):
                spool.add(frame)
        except MulleError:
            raise
        except Exception as error:
            said = f"{self._source.name}() failed: {type(error).__name__}: {error}"
            raise DataError(said, next="mend the function in the project", function=self._source.name) from error
        if not spool.rows:
            return None
        return Batch(
            pieces=pieces([spool.portion()]),
            positions={"position": self._kept(position)},
            origin=f"{self._source.name}()",
            repeats=pl.lit(True) if position is None else None,
        )

    def _kept(self, position: object) -> Json:
        try:
            if isinstance(position, dict | None):
                return orjson.loads(orjson.dumps(position or {}))  # type: ignore[no-any-return]
        except TypeError as error:
            raise self._refused(f"a position that is no JSON: {error}") from error
        raise self._refused(f"a position that is a {type(position).__name__}")

    def _refused(self, said: str) -> DataError:
        return DataError(
            f"{self._source.name}() gave {said}",
            next="return rows, or (rows, position) with a dict of plain values",
            function=self._source.name,
        )


def _parts(given: object) -> tuple[Any, Any]:
    if isinstance(given, tuple):
        if len(given) != 2 or isinstance(given[1], pl.DataFrame | pl.LazyFrame):
            raise TypeError("a tuple is read as (rows, position)")
        return given
    return given, None


def _frames(rows: object) -> Iterable[pl.DataFrame]:
    if rows is None:
        return
    if isinstance(rows, pl.DataFrame):
        yield rows
    elif isinstance(rows, pl.LazyFrame):
        yield from rows.collect_batches()
    elif isinstance(rows, Iterable) and not isinstance(rows, str | bytes | dict):
        for frame in rows:
            if not isinstance(frame, pl.DataFrame):
                raise TypeError(f"rows must be frames, not {type(frame).__name__}")
            yield frame
    else:
        raise TypeError(f"rows must be a polars frame or frames, not {type(rows).__name__}")
