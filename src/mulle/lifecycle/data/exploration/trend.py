"""A table over its own time: how many rows, how the numbers lie and what is missing, period by period."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl

from mulle.core.records.base import Json
from mulle.core.records.exploration import Trend
from mulle.lifecycle.data.cells import plain
from mulle.lifecycle.data.exploration.profile import kind_of

__all__ = ["PERIODS", "PLAUSIBLE", "trend"]

PERIODS = 80
"""Periods that a table's time is cut into, at most."""

PLAUSIBLE = (datetime(1678, 1, 1, tzinfo=UTC), datetime(2261, 12, 31, tzinfo=UTC))
"""Instants that are taken as times; the years 1 and 9999 stand for "never" in many tables, and would stretch every chart."""

_DAY = 86_400
_LENGTHS = {
    "1s": 1, "10s": 10, "1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "6h": 21_600, "1d": _DAY, "1w": 7 * _DAY,
    "1mo": 30 * _DAY, "1q": 91 * _DAY, "1y": 365 * _DAY, "10y": 3_650 * _DAY, "100y": 36_500 * _DAY,
}  # fmt: skip
_QUANTILES = (0.1, 0.5, 0.9)


def trend(seen: pl.DataFrame, time: str) -> Trend | None:
    """Follow a table through the periods of its time column.

    Parameters
    ----------
    seen : polars.DataFrame
        What `readable` gave; must hold the time column.
    time : str

    Returns
    -------
    Trend or None
        In the shortest periods of which there are at most 80, from a second to a century; None when the column holds no
        times.

    Examples
    --------
    >>> from datetime import datetime, UTC
    >>> at = [datetime(2013, 1, 1, h, tzinfo=UTC) for h in (0, 0, 5)]
    >>> found = trend(pl.DataFrame({"at": at, "x": [1.0, 3.0, 8.0]}), "at")
    >>> found.every, found.rows, found.numbers["x"]["mean"]
    ('5m', (2, 1), [2.0, 8.0])
    """
    if kind_of(seen[time]) != "time":
        return None
    dated = seen.filter(pl.col(time).is_between(*PLAUSIBLE))
    if dated.is_empty():
        return None
    every = _every(dated[time])
    numbers = {f"n{at}": name for at, name in enumerate(seen.columns) if kind_of(seen[name]) == "number"}
    holes = {f"h{at}": name for at, name in enumerate(seen.columns) if dated[name].null_count()}
    wanted = [pl.len().alias("rows"), *(pl.col(name).is_null().mean().alias(code) for code, name in holes.items())]
    for code, name in numbers.items():
        values = pl.col(name).cast(pl.Float64).filter(pl.col(name).is_finite())
        wanted += [values.mean().alias(f"{code} mean"), *(values.quantile(q).alias(f"{code} {q}") for q in _QUANTILES)]
    period = pl.col(time).dt.truncate(every).alias("period")
    cut = dated.lazy().group_by(period).agg(wanted).sort("period").collect()
    return Trend(
        column=time,
        every=every,
        periods=tuple(cut["period"]),
        rows=tuple(cut["rows"]),
        undated=seen.height - dated.height,
        numbers={name: _lines(cut, code) for code, name in numbers.items()},
        missing={name: cut[code].to_list() for code, name in holes.items()},
    )


def _every(times: pl.Series) -> str:
    first, last = times.min(), times.max()
    span = (last - first) if last is not None and first is not None else timedelta()  # type: ignore[operator]
    seconds = span.total_seconds() if isinstance(span, timedelta) else 0.0
    return next((name for name, length in _LENGTHS.items() if seconds / length < PERIODS - 1), "100y")


def _lines(cut: pl.DataFrame, code: str) -> Json:
    return {name: [plain(v) for v in cut[f"{code} {name}"]] for name in ("mean", *(str(q) for q in _QUANTILES))}
