"""Serving's half of the join: the joined columns of a request, read from the online store by each row's own time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import polars as pl

from mulle.core.clock import EPOCH, rfc3339
from mulle.core.ports.online import Ask, Found, Online
from mulle.core.records.bundle import JoinSpec
from mulle.kernel.dtypes import dtype_of
from mulle.kernel.keys import key_expr, key_text

__all__ = ["OnlineReader"]

_FEW = 256
_NOTHING: dict[str, Any] = {}

Values = list[dict[str, Any]]
Freshness = list[dict[str, str]]


class OnlineReader:
    """Adds a bundle's joined columns to request rows.

    Parameters
    ----------
    online : Online
    specs : sequence of JoinSpec
        From the bundle's contract, in their order: a join may be on a column that an earlier one brings. Only the
        columns they name are built; the store may hold more.
    """

    def __init__(self, online: Online, specs: Sequence[JoinSpec]) -> None:
        self._online = online
        self._levels = _levels(specs)

    def join(self, frame: pl.DataFrame, *, time: str | None, now: datetime) -> tuple[pl.DataFrame, Freshness]:
        """Add the joined columns, with one read of the store for all joins on the rows' own columns.

        Joins on a column that another join brings need that one's answer first, so each level of nesting is one more read.

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
        freshness: Freshness = [{} for _ in range(frame.height)]
        at = _instants(frame, time, now)
        for level in self._levels:
            built: list[pl.Series] = []
            for plan, values in zip(level, self._read(level, frame, at, freshness), strict=True):
                built += plan.columns(values)
            frame = frame.hstack(built)
        return frame.select(self._order(frame)) if len(self._levels) > 1 else frame, freshness

    def _read(self, level: list[_Plan], frame: pl.DataFrame, at: list[int], freshness: Freshness) -> list[Values]:
        asks: list[Ask] = []
        places: list[tuple[int, int]] = []
        for number, plan in enumerate(level):
            table, every = plan.table, plan.every
            for row, key in enumerate(_keys(frame, plan.on)):
                if key is not None:
                    asks.append((table, key, at[row] if every is None else at[row] - at[row] % every))
                    places.append((number, row))
        values = [[_NOTHING] * len(at) for _ in level]
        for (number, row), ask, answer in zip(places, asks, self._online.get(asks), strict=True):
            # An entry without values says that what once stood there holds no longer.
            if answer is not None and answer[1]:
                plan = level[number]
                moment = plan.moment(answer)
                if moment is not None:
                    freshness[row][plan.name] = _stamp(moment)
                if plan.usable(moment, ask[2]):
                    values[number][row] = answer[1]
        return values

    def _order(self, frame: pl.DataFrame) -> list[str]:
        joined = {c: p.place for level in self._levels for p in level for c in p.full}
        return sorted(frame.columns, key=lambda c: joined.get(c, -1))


class _Plan:
    """One join: what to ask for it, whether an answer may be used, and the columns made of answers."""

    __slots__ = ("_dtypes", "every", "full", "name", "on", "place", "table", "within")

    def __init__(self, spec: JoinSpec, place: int) -> None:
        self.name, self.table, self.on, self.place = spec.name, spec.table, spec.on, place
        self.every, self.within = spec.every_us, spec.within_us
        self._dtypes = pl.Schema({name: dtype_of(text) for name, text in spec.columns.items()})
        self.full = [f"{spec.name}.{name}" for name in self._dtypes]

    def moment(self, answer: Found) -> int | None:
        """Give the instant that an answer is of: a history's tick, a row's own time; None for a table without time."""
        if self.every is not None:
            return answer[0]
        return answer[1].get("_t")

    def usable(self, moment: int | None, asked: int) -> bool:
        """Tell whether an answer may be used at the asked instant: a history's only at its very tick."""
        if self.every is not None:
            return moment == asked
        return self.within is None or moment is None or asked - moment <= self.within

    def columns(self, values: Values) -> list[pl.Series]:
        """Make the columns; null where there is no value."""
        if not self.full:
            return []
        # JSON has no times: they are kept as their physical number, and read as what they are.
        frame = pl.from_dicts(values, schema=self._dtypes)
        frame.columns = self.full
        return frame.get_columns()


def _levels(specs: Sequence[JoinSpec]) -> list[list[_Plan]]:
    depth: dict[str, int] = {}
    levels: list[list[_Plan]] = []
    for place, spec in enumerate(specs):
        own = 1 + max((depth[column] for column in spec.on if column in depth), default=-1)
        depth |= {f"{spec.name}.{column}": own for column in spec.columns}
        levels += [[] for _ in range(own + 1 - len(levels))]
        levels[own].append(_Plan(spec, place))
    return levels


@lru_cache(maxsize=4096)
def _stamp(moment: int) -> str:
    return rfc3339(EPOCH + timedelta(microseconds=moment))


def _instants(frame: pl.DataFrame, time: str | None, now: datetime) -> list[int]:
    moment = (now - EPOCH) // timedelta(microseconds=1)
    if time is None:
        return [moment] * frame.height
    return [moment if v is None else v for v in frame.get_column(time).cast(pl.Int64).to_list()]


def _keys(frame: pl.DataFrame, on: Sequence[str]) -> list[str | None]:
    if len(on) == 1 and isinstance(frame.schema[on[0]], pl.String):  # a text is its own key
        return frame.get_column(on[0]).to_list()
    if frame.height <= _FEW:
        return [key_text(values) for values in zip(*(frame.get_column(c).to_list() for c in on), strict=True)]
    return frame.select(key_expr(on).alias("k"))["k"].to_list()
