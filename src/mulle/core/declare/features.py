"""Features: one function from rows to columns, and the joins in time that feed it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from mulle.core.clock import duration
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.names import columns
from mulle.core.errors import DeclarationError

__all__ = ["AsOf", "Features", "History", "Join", "Lookup", "On", "asof", "features", "history", "lookup"]

Transform = Callable[[pl.LazyFrame], pl.LazyFrame]

On = str | Iterable[str] | Mapping[str, str]
"""A row's columns that make a key, or a mapping from them to the table's columns."""

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """The current row of a table by key; `on` names the row's columns in the order of the dataset's key."""

    dataset: Dataset
    on: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AsOf:
    """The last row of a table, by key, whose time (and availability) is not after the row's time.

    A row older than `within` gives null. `on` names the row's columns in the order of the dataset's key.
    """

    dataset: Dataset
    on: tuple[str, ...]
    within: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Aggregates over past rows of a table by key, defined at ticks.

    The value at time t covers rows available in ``(tick - window, tick]``, where tick is the last multiple of
    `every` since the UTC epoch not after t; empty gives null. `on` names the row's columns, `by` the table's.
    """

    dataset: Dataset
    on: tuple[str, ...]
    by: tuple[str, ...]
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


def lookup(dataset: Dataset, *, on: On) -> Lookup:
    """Join the row of a table by key: the last one known at the row's time, or the current one of a table without time.

    Parameters
    ----------
    dataset : Dataset
        With a key.
    on : str, sequence or mapping
        The row's columns: as many as the dataset's key has, in its order (names that are the key's own go by name), or a
        mapping to the key's columns. ``join.column`` is a column of an earlier join.

    Raises
    ------
    DeclarationError
        When `on` does not make up the dataset's key.

    Examples
    --------
    >>> from mulle.core.declare.sources import Files
    >>> planes = Dataset("planes", Files("p.csv"), key=["country", "number"])
    >>> lookup(planes, on={"tail": "number", "flag": "country"}).on
    ('flag', 'tail')
    """
    return Lookup(dataset=dataset, on=_in_order_of_key(dataset, on))


def asof(dataset: Dataset, *, on: On, within: str | timedelta) -> AsOf:
    """Join the last row known before the row's time, not older than `within`; `on` as in `lookup`.

    Raises
    ------
    DeclarationError
        When the dataset declares no time, or `on` does not make up its key.
    """
    if dataset.time is None:
        raise DeclarationError(f"asof({dataset.name}): the dataset declares no time", next="use ml.lookup, or declare time=")
    span = duration(within)
    if span < timedelta(0):
        raise DeclarationError(f"asof({dataset.name}): within is {span}", next="write a span such as 3h")
    return AsOf(dataset=dataset, on=_in_order_of_key(dataset, on), within=span)


def history(dataset: Dataset, *, on: On, window: str | timedelta, every: str | timedelta, **values: pl.Expr) -> History:
    """Aggregate past rows by key, at ticks.

    Parameters
    ----------
    dataset : Dataset
        With time.
    on : str, sequence or mapping
        Columns of that name in both the rows and the dataset, or a mapping from the row's columns (``join.column`` of an
        earlier join among them) to the dataset's.
    window, every : str
        Span that is covered, and spacing of the ticks.
    **values : polars.Expr
        Aggregations, such as ``pl.col("air_time").mean()``.

    Raises
    ------
    DeclarationError
        When the dataset declares no time, no column or no value is named, or a span is not positive.

    Examples
    --------
    >>> from mulle.core.declare.sources import Files
    >>> trips = Dataset("trips", Files("t.csv"), time="at")
    >>> made = history(trips, on={"plane.model": "model"}, window="7d", every="1h", n=pl.len())
    >>> made.on, made.by
    (('plane.model',), ('model',))
    """
    if dataset.time is None:
        raise DeclarationError(f"history({dataset.name}): the dataset declares no time", next="declare time= and known_at=")
    if not values:
        raise DeclarationError(f"history({dataset.name}): no value", next="add for example mean=pl.col('x').mean()")
    pairs = _pairs(on)
    if not pairs:
        raise DeclarationError(f"history({dataset.name}): on names no column", next="name the columns to group by")
    for _, column in pairs:
        if "." in column and not isinstance(on, Mapping):
            raise DeclarationError(
                f"history({dataset.name}): '{column}' is a joined column, and no column of the dataset",
                next=f"write on={{'{column}': ...}} with the dataset's column",
            )
    spans = {"window": duration(window), "every": duration(every)}
    for name, span in spans.items():
        if span < _MICROSECOND:
            raise DeclarationError(f"history({dataset.name}): {name} is {span}", next="write a span such as 1h")
    rows, table = zip(*pairs, strict=True)
    return History(dataset=dataset, on=rows, by=table, values=tuple(values.items()), **spans)


def features(dataset: Dataset, **joins: Join) -> Callable[[Transform], Features]:
    """Declare a feature function over a dataset's rows and joined tables.

    Parameters
    ----------
    dataset : Dataset
        The rows a prediction is asked for.
    **joins : Join
        By name; a joined column appears to the function as ``name.column``. They are resolved in this order, so a join may
        be made on a column of an earlier one.

    Returns
    -------
    decorator
        Turns ``def f(rows: pl.LazyFrame) -> pl.LazyFrame`` into `Features`. The function must be row-wise.

    Raises
    ------
    DeclarationError
        When a join is made on a column of a later or unknown join, or on one that the join does not bring.

    Examples
    --------
    >>> from mulle.core.declare.sources import Files
    >>> @features(Dataset("d", Files("d.csv")))
    ... def f(rows):
    ...     return rows.select("x")
    >>> f.name, f(pl.LazyFrame({"x": [1], "y": [2]})).collect().columns
    ('f', ['x'])
    """
    earlier: dict[str, Join] = {}
    for name, join in joins.items():
        if "." in name:
            raise DeclarationError(f"join name '{name}' has a dot", next="name it in one word; joined columns are name.column")
        for column in join.on:
            _resolve(name, column, earlier, joins)
        earlier[name] = join

    def declare(function: Transform) -> Features:
        return Features(name=function.__name__, dataset=dataset, joins=tuple(joins.items()), transform=function)

    return declare


def _resolve(name: str, column: str, earlier: Mapping[str, Join], joins: Mapping[str, Join]) -> None:
    source, dot, brought = column.partition(".")
    if not dot:
        return
    if source not in earlier:
        what = "a later join" if source in joins and source != name else "the join itself" if source == name else "no join"
        raise DeclarationError(
            f"join '{name}' is on '{column}', and '{source}' is {what}",
            next=f"earlier joins: {', '.join(earlier) or 'none'}; joins are resolved in the order they are written",
        )
    join = earlier[source]
    if isinstance(join, History) and brought not in dict(join.values):
        raise DeclarationError(
            f"join '{name}' is on '{column}', which '{source}' does not give",
            next=f"'{source}' gives {', '.join(n for n, _ in join.values)}",
        )
    if not isinstance(join, History) and brought in join.dataset.key:
        own = join.on[join.dataset.key.index(brought)]
        raise DeclarationError(f"join '{name}' is on '{column}', a key, which a join does not bring", next=f"name '{own}'")


def _pairs(on: On) -> tuple[tuple[str, str], ...]:
    return tuple(on.items()) if isinstance(on, Mapping) else tuple((c, c) for c in columns(on))


def _in_order_of_key(dataset: Dataset, on: On) -> tuple[str, ...]:
    pairs = _pairs(on)
    by_table = {table: row for row, table in pairs}
    if len(by_table) == len(pairs) and set(by_table) == set(dataset.key) and pairs:
        return tuple(by_table[column] for column in dataset.key)
    if isinstance(on, Mapping) or len(pairs) != len(dataset.key) or not pairs:
        named = ", ".join(table for _, table in pairs)
        raise DeclarationError(
            f"join on {named or 'nothing'}: dataset {dataset.name} has the key ({', '.join(dataset.key) or 'none'})",
            next="name as many columns as the dataset's key has, or map yours to them: on={'mine': 'key'}",
        )
    return tuple(row for row, _ in pairs)
