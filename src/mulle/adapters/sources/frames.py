"""A source that plays back a frame: on a replay clock the past arrives as it once became known."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from mulle.core.clock import instant, rfc3339
from mulle.core.errors import DataError
from mulle.core.ports.source import Batch
from mulle.core.records.base import Json

__all__ = ["FrameReader"]


class FrameReader:
    """Gives a frame's rows in the order in which they became available; implements `SourceReader`.

    Parameters
    ----------
    frame : polars.DataFrame
    available : str or None
        The column that tells when a row became known; None gives all rows at the first read.
    time : str or None
        Stands in where `available` is null (a row whose outcome never came is known by its own time). Rows without
        either are never given.
    origin : str
        For people.

    Examples
    --------
    >>> frame = pl.DataFrame({"x": [1, 2], "at": [instant("2013-01-02"), instant("2013-01-01")]})
    >>> reader = FrameReader(frame, "at")
    >>> first = reader.read({}, instant("2013-01-01"))
    >>> first.frame()["x"].to_list(), first.positions
    ([2], {'until': '2013-01-01T00:00:00Z'})
    >>> reader.read(first.positions, instant("2013-01-01")) is None
    True
    """

    def __init__(self, frame: pl.DataFrame, available: str | None, *, time: str | None = None, origin: str = "frame") -> None:
        self._origin = origin
        self._available = available
        if available is None:
            self._frame, self._moments = frame, None
            return
        names = [c for c in (available, time) if c is not None]
        for name in names:
            if not isinstance(frame.schema.get(name), pl.Datetime):
                raise DataError(f"{origin}: '{name}' is no datetime column", next="name a datetime column", column=name)
        moments = frame.select(pl.coalesce(pl.col(c).dt.epoch("us") for c in names).alias("__at"))
        ordered = frame.hstack(moments).drop_nulls("__at").sort("__at", maintain_order=True)
        self._frame, self._moments = ordered.drop("__at"), ordered["__at"]

    def read(self, positions: Json, until: datetime | None = None) -> Batch | None:
        """Return the rows available in ``(positions["until"], until]``, in time order, or None."""
        if self._moments is None:
            if positions.get("all") or self._frame.is_empty():
                return None
            return Batch(pieces=[self._frame], positions={"all": True}, origin=self._origin)
        before = positions.get("until")
        first = 0 if before is None else self._after(instant(before))
        last = self._moments.len() if until is None else self._after(until)
        if last <= first:
            return None
        reached = until if until is not None else self._last()
        return Batch(pieces=[self._frame[first:last]], positions={"until": rfc3339(reached)}, origin=self._origin)

    def _after(self, moment: datetime) -> int:
        assert self._moments is not None
        return int(self._moments.search_sorted(_micros(moment), side="right"))

    def _last(self) -> datetime:
        assert self._moments is not None
        return pl.Series([self._moments[-1]], dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))[0]  # type: ignore[no-any-return]


def _micros(moment: datetime) -> int:
    return int(pl.Series([moment]).dt.epoch("us")[0])
