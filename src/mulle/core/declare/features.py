"""Features: one function from rows to columns, and the joins in time that feed it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from mulle.core.clock import duration
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.names import columns
from mulle.core.errors import DeclarationError

__all__ = ["AsOf", "Features", "History", "Join", "Lookup", "asof", "features", "history", "lookup"]

Transform = Callable[[pl.LazyFrame], pl.LazyFrame]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """The current row of a table by key."""

    dataset: Dataset
    on: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AsOf:
    """The last row of a table, by key, whose time (and availability) is not after the row's time.

    A row older than `within` gives null.
    """

    dataset: Dataset
    on: tuple[str, ...]
    within: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Aggregates over past rows of a table by key, defined at ticks.

    The value at time t covers rows available in ``(tick - window, tick]``, where tick is the last multiple of
    `every` since the UTC epoch not after t; empty gives null.
    """

    dataset: Dataset
    on: tuple[str, ...]
    window: timedelta
    every: timedelta
    values: tuple[tuple[str, pl.Expr], ...]


Join = Lookup | AsOf | History


@dataclass(frozen=True, slots=True)
class Features:
    """A feature function with its rows' dataset and its joins; callable like the function itself."""

    name: str
    dataset: Dataset
    joins: tuple[tuple[str, Join], ...]
    transform: Transform

    def __call__(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Run the user's function on rows that carry the joined columns (``join.column``)."""
        return self.transform(rows)


def lookup(dataset: Dataset, *, on: str | Iterable[str]) -> Lookup:
    """Join the current row of a table by key.

    Examples
    --------
    >>> from mulle.core.declare.dataset import Files
    >>> lookup(Dataset("planes", Files("p.csv"), key="tailnum"), on="tailnum").on
    ('tailnum',)
    """
    return Lookup(dataset=dataset, on=_same_length(dataset, columns(on)))


def asof(dataset: Dataset, *, on: str | Iterable[str], within: str | timedelta) -> AsOf:
    """Join the last row known before the row's time, not older than `within`.

    Raises
    ------
    DeclarationError
        When the dataset declares no time.
    """
    if dataset.time is None:
        raise DeclarationError(f"asof({dataset.name}): the dataset declares no time", next="use ml.lookup, or declare time=")
    return AsOf(dataset=dataset, on=_same_length(dataset, columns(on)), within=duration(within))


def history(
    dataset: Dataset,
    *,
    on: str | Iterable[str],
    window: str | timedelta,
    every: str | timedelta,
    **values: pl.Expr,
) -> History:
    """Aggregate past rows by key, at ticks.

    Parameters
    ----------
    dataset : Dataset
        With time.
    on : str or sequence of str
        Columns of that name in both the rows and the dataset.
    window, every : str
        Span that is covered, and spacing of the ticks.
    **values : polars.Expr
        Aggregations, such as ``pl.col("air_time").mean()``.

    Raises
    ------
    DeclarationError
        When the dataset declares no time or no value is asked for.
    """
    if dataset.time is None:
        raise DeclarationError(f"history({dataset.name}): the dataset declares no time", next="declare time= and known_at=")
    if not values:
        raise DeclarationError(f"history({dataset.name}): no value", next="add for example mean=pl.col('x').mean()")
    return History(dataset=dataset, on=columns(on), window=duration(window), every=duration(every), values=tuple(values.items()))


def features(dataset: Dataset, **joins: Join) -> Callable[[Transform], Features]:
    """Declare a feature function over a dataset's rows and joined tables.

    Parameters
    ----------
    dataset : Dataset
        The rows a prediction is asked for.
    **joins : Join
        By name; a joined column appears to the function as ``name.column``.

    Returns
    -------
    decorator
        Turns ``def f(rows: pl.LazyFrame) -> pl.LazyFrame`` into `Features`. The function must be row-wise.

    Examples
    --------
    >>> from mulle.core.declare.dataset import Files
    >>> @features(Dataset("d", Files("d.csv")))
    ... def f(rows):
    ...     return rows.select("x")
    >>> f.name, f(pl.LazyFrame({"x": [1], "y": [2]})).collect().columns
    ('f', ['x'])
    """

    def declare(function: Transform) -> Features:
        return Features(name=function.__name__, dataset=dataset, joins=tuple(joins.items()), transform=function)

    return declare


def _same_length(dataset: Dataset, on: tuple[str, ...]) -> tuple[str, ...]:
    if len(dataset.key) != len(on):
        raise DeclarationError(
            f"join on {', '.join(on)}: dataset {dataset.name} has the key ({', '.join(dataset.key) or 'none'})",
            next="name as many columns as the dataset's key has",
        )
    return on
