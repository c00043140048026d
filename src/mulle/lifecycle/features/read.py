"""Serving's half of the join: the joined columns of a request, read from the online store by each row's own time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import polars as pl

from mulle.core.clock import EPOCH, rfc3339
from mulle.core.ports.online import Online
from mulle.core.records.bundle import JoinSpec
from mulle.kernel.dtypes import dtype_of
from mulle.kernel.keys import key_expr, key_text

__all__ = ["OnlineReader"]

_FEW = 256
Found = list[dict[str, Any] | None]


class OnlineReader:
    """Adds a bundle's joined columns to request rows.

    Parameters
    ----------
    online : Online
    specs : sequence of JoinSpec
        From the bundle's contract.
    """

    def __init__(self, online: Online, specs: Sequence[JoinSpec]) -> None:
        self._online = online
        self._plans = [(spec, [_Column(spec.name, n, t) for n, t in spec.columns.items()]) for spec in specs]

    def join(self, frame: pl.DataFrame, *, time: str | None, now: datetime) -> tuple[pl.DataFrame, list[dict[str, str]]]:
        """Add the joined columns, one read of the store per join for the whole batch.

        Parameters
        ----------
        frame : polars.DataFrame, n rows
            Request rows in the contract's types.
        time : str or None
            The time column; null, or none at all, means `now`.
        now : datetime

        Returns
        -------
        polars.DataFrame
            Same height and order, with ``join.column`` added in the contract's types.
        list of dict, length n
            By join, the instant of what was found (a history's tick, an as-of row's own time), also when it was too old
            to be used; absent when nothing was found or the table has no time.
        """
        freshness: list[dict[str, str]] = [{} for _ in range(frame.height)]
        if not self._plans:
            return frame, freshness
        at = _instants(frame, time, now)
        columns: list[pl.Series] = []
        for spec, plan in self._plans:
            found = self._read(spec, frame, at, freshness)
            columns.extend(column.series(found) for column in plan)
        return frame.hstack(columns), freshness

    def _read(self, spec: JoinSpec, frame: pl.DataFrame, at: list[int], freshness: list[dict[str, str]]) -> Found:
        keys = _keys(frame, spec.on)
        every = spec.every_us
        moments = at if every is None else [m - m % every for m in at]
        asked = [i for i, k in enumerate(keys) if k is not None]
        answers = self._online.get(spec.table, [keys[i] or "" for i in asked], [moments[i] for i in asked])
        found: Found = [None] * len(at)
        for i, answer in zip(asked, answers, strict=True):
            if answer is None:
                continue
            instant, values = answer
            moment = instant if spec.kind == "history" else values.get("_t")
            if moment is not None:
                freshness[i][spec.name] = _stamp(moment)
            if spec.kind == "history":
                usable = instant == moments[i]
            else:
                usable = spec.within_us is None or moment is None or at[i] - moment <= spec.within_us
            if usable:
                found[i] = values
        return found


class _Column:
    """One joined column: picks its value from the store's answers."""

    __slots__ = ("_dtype", "_full", "_name", "_stored")

    def __init__(self, join: str, name: str, dtype: str) -> None:
        self._name, self._full, self._dtype = name, f"{join}.{name}", dtype_of(dtype)
        self._stored = pl.Int64() if self._dtype.is_temporal() else self._dtype

    def series(self, found: Found) -> pl.Series:
        """Give the column; null where nothing was found."""
        name = self._name
        values = [None if v is None else v.get(name) for v in found]
        series = pl.Series(self._full, values, dtype=self._stored)
        if self._stored is self._dtype:
            return series
        return (series.cast(pl.Int32) if self._dtype == pl.Date else series).cast(self._dtype)


@lru_cache(maxsize=4096)
def _stamp(moment: int) -> str:
    return rfc3339(EPOCH + timedelta(microseconds=moment))


def _instants(frame: pl.DataFrame, time: str | None, now: datetime) -> list[int]:
    moment = (now - EPOCH) // timedelta(microseconds=1)
    if time is None:
        return [moment] * frame.height
    return [moment if v is None else v for v in frame[time].dt.epoch("us").to_list()]


def _keys(frame: pl.DataFrame, on: Sequence[str]) -> list[str | None]:
    if frame.height <= _FEW:
        return [key_text(values) for values in zip(*(frame[c].to_list() for c in on), strict=True)]
    return frame.select(key_expr(on).alias("k"))["k"].to_list()
