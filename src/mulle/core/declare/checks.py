"""The words for checks on a dataset's batches; all column checks are evaluated in one pass by `lifecycle.data.check`.

Each word gives a tuple of checks. With ``severity="fail"`` (the default) a failing batch goes to quarantine, with
``severity="warn"`` it is published and the warning is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Literal

import polars as pl

from mulle.core.clock import duration, instant
from mulle.core.declare import names, rules
from mulle.core.declare.rules import Bound, Check, Severity
from mulle.core.errors import DeclarationError, UsageError

if TYPE_CHECKING:
    from mulle.core.declare.dataset import Dataset

__all__ = [
    "Check",
    "Severity",
    "between",
    "foreign_key",
    "fresh",
    "holds",
    "increasing",
    "matches",
    "no_duplicates",
    "not_null",
    "one_of",
    "passes",
    "rows",
    "rows_as_source",
    "rows_like_previous",
    "same_distribution",
    "sql",
    "unique",
]

Checks = tuple[Check, ...]


def rows(
    *,
    at_least: int | None = None,
    at_most: int | None = None,
    of: Literal["batch", "table"] = "batch",
    severity: Severity = "fail",
) -> Checks:
    """Bound the number of rows in a batch, or in the table after publishing (``of="table"``).

    Raises
    ------
    DeclarationError
        Without a bound, or with bounds that no count meets.

    Examples
    --------
    >>> rows(at_least=1)[0].name, rows(at_most=5, of="table")[0].name
    ('rows', 'rows(table)')
    """
    low = 0 if at_least is None else at_least
    if (at_least is None and at_most is None) or (at_most is not None and at_most < low):
        raise DeclarationError(f"rows(at_least={at_least}, at_most={at_most}) bounds nothing", next="write ml.rows(at_least=1)")
    if of not in ("batch", "table"):
        raise DeclarationError(f"rows(of={of!r})", next='write of="batch" or of="table"')
    name = "rows(table)" if of == "table" else "rows"
    return (rules.Rows(name=name, severity=severity, at_least=at_least, at_most=at_most, of=of),)


def rows_like_previous(*, within: float = 0.5, severity: Severity = "fail") -> Checks:
    """Want a batch of about as many rows as the one before.

    Parameters
    ----------
    within : float
        The largest relative change: 0.5 takes half to one and a half times as many.

    Examples
    --------
    >>> rows_like_previous(within=0.2)[0].within
    0.2
    """
    if not within >= 0:
        raise DeclarationError(f"rows_like_previous(within={within})", next="name a share such as 0.5")
    return (rules.RowsLikePrevious(name="rows_like_previous", severity=severity, within=within),)


def rows_as_source(*, severity: Severity = "fail") -> Checks:
    """Want as many rows as the source itself counts; fails where a source cannot count.

    Examples
    --------
    >>> rows_as_source()[0].name
    'rows_as_source'
    """
    return (rules.RowsAsSource(name="rows_as_source", severity=severity),)


def unique(*columns: str, severity: Severity = "fail") -> Checks:
    """Want the columns together to be unique, in the batch and against the published rows that stay.

    A row that takes the place of its own earlier version (same key, and time where one is declared) is no violation.
    Rows with a null in one of the columns pass.

    Examples
    --------
    >>> unique("flight_id")[0].name
    'unique(flight_id)'
    """
    if not columns:
        raise DeclarationError("unique() names no column", next="write ml.unique('id')")
    return (rules.Unique(name=f"unique({', '.join(columns)})", severity=severity, columns=columns),)


def no_duplicates(*, severity: Severity = "fail") -> Checks:
    """Want no two rows of a batch to be equal in every column; nulls count as equal.

    Examples
    --------
    >>> no_duplicates()[0].name
    'no_duplicates'
    """
    return (rules.NoDuplicates(name="no_duplicates", severity=severity),)


def not_null(*columns: str, severity: Severity = "fail") -> Checks:
    """Want each of the columns to be without nulls (and NaN).

    Examples
    --------
    >>> [c.name for c in not_null("a", "b")]
    ['not_null(a)', 'not_null(b)']
    """
    return tuple(rules.NotNull(name=f"not_null({c})", severity=severity, column=c) for c in columns)


def one_of(column: str, values: Sequence[str | int | float | bool] | Dataset, *, severity: Severity = "fail") -> Checks:
    """Want the column's codes to be in a fixed set, or among the keys of a reference dataset; null passes.

    Parameters
    ----------
    column : str
    values : sequence or Dataset
        A dataset stands for the values of its key's first column at its current published version.

    Examples
    --------
    >>> one_of("origin", ["EWR", "JFK", "LGA"])[0].values
    ('EWR', 'JFK', 'LGA')
    """
    reference = values if hasattr(values, "key") else None
    fixed = () if reference is not None or isinstance(values, str) else tuple(values)  # type: ignore[arg-type]
    if not fixed and not getattr(reference, "key", ()):
        raise DeclarationError(f"one_of({column!r}) names no values", next="give a list of values, or a dataset with a key")
    return (rules.OneOf(name=f"one_of({column})", severity=severity, column=column, values=fixed, reference=reference),)  # type: ignore[arg-type]


def foreign_key(
    columns: str | Iterable[str], dataset: Dataset, to: str | Iterable[str] | None = None, *, severity: Severity = "fail"
) -> Checks:
    """Want the columns together to stand in another dataset's current rows; rows with a null pass.

    Parameters
    ----------
    columns : str or sequence of str
    dataset : Dataset
    to : str or sequence of str, optional
        Its columns, one for each; its key by default.

    Raises
    ------
    DeclarationError
        When there are not as many of the one as of the other.

    Examples
    --------
    >>> from mulle.core.declare.dataset import Dataset
    >>> from mulle.core.declare.sources import Files
    >>> planes = Dataset("planes", Files("planes.csv"), key="tailnum")
    >>> foreign_key("tailnum", planes)[0].name
    'foreign_key(tailnum -> planes)'
    """
    here, there = names.columns(columns), names.columns(to) or dataset.key
    if not here or len(here) != len(there):
        detail = f"foreign_key({', '.join(here)}): {dataset.name} is to be found by ({', '.join(there) or 'no key'})"
        raise DeclarationError(detail, next="name one column for each, in the same order")
    name = f"foreign_key({', '.join(here)} -> {dataset.name})"
    return (rules.ForeignKey(name=name, severity=severity, columns=here, reference=dataset, to=there),)


def between(column: str, low: Bound | str, high: Bound | str, *, severity: Severity = "fail") -> Checks:
    """Want the column's values between low and high, both included; null passes, NaN does not.

    Parameters
    ----------
    column : str
    low, high : number, date, datetime or str
        Text is read as a date ("2013-01-01") or an instant ("2013-01-01T12:00:00Z"). Against dates a column of instants
        is judged by its day in UTC, so the last day counts whole.

    Examples
    --------
    >>> between("distance", 10, 6_000)[0].high
    6000
    >>> between("landed_at", "2013-01-01", "2013-12-31")[0].low
    datetime.date(2013, 1, 1)
    """
    start, end = _bound(low), _bound(high)
    if _kind(start) != _kind(end):
        raise DeclarationError(
            f"between({column!r}, {low}, {high}): bounds of two kinds", next="give two numbers, dates or instants"
        )
    if not start <= end:  # type: ignore[operator]
        raise DeclarationError(f"between({column!r}, {low}, {high}): low is above high", next="swap the bounds")
    return (rules.Between(name=f"between({column})", severity=severity, column=column, low=start, high=end),)


def matches(column: str, pattern: str, *, severity: Severity = "fail") -> Checks:
    """Want the column's text to match a regular expression (Rust syntax), anywhere unless anchored; null passes.

    Examples
    --------
    >>> matches("tailnum", "^N", severity="warn")[0].severity
    'warn'
    """
    return (rules.Matches(name=f"matches({column})", severity=severity, column=column, pattern=pattern),)


def holds(expr: pl.Expr | str, *, name: str | None = None, severity: Severity = "fail") -> Checks:
    """Want an expression over each row's columns to be true; null passes.

    Parameters
    ----------
    expr : polars.Expr or str
        Text is a SQL expression, read by Polars.
    name : str, optional
        In results; by default the expression.

    Examples
    --------
    >>> holds("landed_at >= scheduled_at")[0].name
    'holds(landed_at >= scheduled_at)'
    """
    said = name or f"holds({_short(str(expr))})"
    return (rules.Holds(name=said, severity=severity, expr=expr),)


def increasing(
    column: str, *, by: str | Iterable[str] | None = None, strictly: bool = False, severity: Severity = "fail"
) -> Checks:
    """Want no value below the one before it, in the order of a batch's rows; nulls are passed over.

    Parameters
    ----------
    column : str
    by : str or sequence of str, optional
        Within each group of equal values here.
    strictly : bool
        Equal values fail as well.

    Examples
    --------
    >>> increasing("reading", by="meter")[0].name
    'increasing(reading by meter)'
    """
    groups = names.columns(by)
    name = f"increasing({column}{' by ' if groups else ''}{', '.join(groups)})"
    return (rules.Increasing(name=name, severity=severity, column=column, by=groups, strictly=strictly),)


def fresh(column: str, within: str | timedelta, *, severity: Severity = "fail") -> Checks:
    """Want the newest value to be at most so old when the batch is checked, and none to lie in the future.

    Parameters
    ----------
    column : str
        Dates or datetimes; a date stands for its midnight, UTC.
    within : str or timedelta
        For example "2h".

    Examples
    --------
    >>> fresh("observed_at", "2h")[0].within
    datetime.timedelta(seconds=7200)
    """
    return (rules.Fresh(name=f"fresh({column})", severity=severity, column=column, within=duration(within)),)


def same_distribution(column: str, *, psi: float = 0.2, severity: Severity = "fail") -> Checks:
    """Want the column's values to be spread as in the published rows.

    Parameters
    ----------
    column : str
        Numbers (in the published rows' deciles), text or booleans (by value).
    psi : float
        The largest population stability index, less what sampling alone would give; by custom 0.1 is a small and 0.2 a
        large change. Nulls are left out. Too few rows to tell, or nothing published, passes.

    Examples
    --------
    >>> same_distribution("distance")[0].psi
    0.2
    """
    if not psi > 0:
        raise DeclarationError(f"same_distribution({column!r}, psi={psi})", next="name a bound above 0, such as 0.2")
    return (rules.SameDistribution(name=f"same_distribution({column})", severity=severity, column=column, psi=psi),)


def sql(query: str, *, severity: Severity = "fail") -> Checks:
    """Want a DuckDB query over the batch (the table of the dataset's name) to return no row.

    Examples
    --------
    >>> sql("select 1 where false")[0].name
    'sql(select 1 where false)'
    """
    return (rules.Sql(name=f"sql({_short(query)})", severity=severity, query=query),)


def passes(function: Callable[[pl.DataFrame], object], *, name: str | None = None, severity: Severity = "fail") -> Checks:
    """Want a function of the batch to find nothing wrong; it may call pandera, pointblank or anything else.

    Parameters
    ----------
    function : callable
        Takes the batch as a `polars.DataFrame`. Gives nothing or True when all is well, False when not, a Series of bool
        (true: the row is good), a frame of the failing rows, or a list of messages. What it raises is a failure; an
        error that carries ``failure_cases``, as pandera's do, is counted and sampled.
    name : str, optional
        In results; by default the function's.

    Examples
    --------
    >>> def plausible(rows):
    ...     return rows["x"] > 0
    >>> passes(plausible)[0].name
    'passes(plausible)'
    """
    if not callable(function):
        raise DeclarationError(f"passes({function!r}) is no function", next="give a function of a polars.DataFrame")
    called = getattr(function, "__name__", type(function).__name__)
    return (rules.Passes(name=name or f"passes({called})", severity=severity, function=function),)


def _short(text: str) -> str:
    return " ".join(text.split())[:60]


def _bound(value: Bound | str) -> Bound:
    if isinstance(value, datetime):
        return instant(value)
    if not isinstance(value, str):
        return value
    try:
        return date.fromisoformat(value) if len(value) == 10 else instant(value)
    except (ValueError, UsageError) as error:
        raise DeclarationError(
            f"{value!r} is no date and no instant", next="write it as 2013-01-01 or 2013-01-01T12:00:00Z"
        ) from error


def _kind(value: Bound) -> type:
    return next((kind for kind in (datetime, date) if isinstance(value, kind)), float)
