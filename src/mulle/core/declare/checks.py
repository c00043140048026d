"""Checks on a dataset's batches: declared here, evaluated in one pass by `lifecycle.data.check`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mulle.core.errors import DeclarationError

if TYPE_CHECKING:
    from mulle.core.declare.dataset import Dataset

__all__ = [
    "Between",
    "Check",
    "Matches",
    "NotNull",
    "OneOf",
    "Rows",
    "Sql",
    "Unique",
    "between",
    "matches",
    "not_null",
    "one_of",
    "rows",
    "sql",
    "unique",
]

Severity = Literal["warn", "fail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The batch has at least (and at most) so many rows."""

    at_least: int | None
    at_most: int | None
    severity: Severity

    @property
    def name(self) -> str:
        """The check's name in results."""
        return "rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unique:
    """The columns together are unique, in the batch and against what is published."""

    columns: tuple[str, ...]
    severity: Severity

    @property
    def name(self) -> str:
        """The check's name in results."""
        return f"unique({', '.join(self.columns)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotNull:
    """The column has no null (nor NaN)."""

    column: str
    severity: Severity

    @property
    def name(self) -> str:
        """The check's name in results."""
        return f"not_null({self.column})"


@dataclass(frozen=True, slots=True, kw_only=True)
class OneOf:
    """The column's values are in a fixed set, or among a reference dataset's keys; null passes."""

    column: str
    values: tuple[str | int, ...]
    reference: Dataset | None
    severity: Severity

    @property
    def name(self) -> str:
        """The check's name in results."""
        return f"one_of({self.column})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """The column's values lie between low and high, both included; null passes."""

    column: str
    low: float
    high: float
    severity: Severity

    @property
    def name(self) -> str:
        """The check's name in results."""
        return f"between({self.column})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """The column's text matches a regular expression (Rust syntax); null passes."""

    column: str
    pattern: str
    severity: Severity

    @property
    def name(self) -> str:
        """The check's name in results."""
        return f"matches({self.column})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sql:
    """A query that returns the failing rows; the batch is the table of the dataset's name."""

    query: str
    severity: Severity

    @property
    def name(self) -> str:
        """The check's name in results."""
        return f"sql({' '.join(self.query.split())[:60]})"


Check = Rows | Unique | NotNull | OneOf | Between | Matches | Sql


def rows(*, at_least: int | None = None, at_most: int | None = None, severity: Severity = "fail") -> tuple[Check, ...]:
    """Bound the number of rows in a batch.

    Examples
    --------
    >>> rows(at_least=1)[0].name
    'rows'
    """
    return (Rows(at_least=at_least, at_most=at_most, severity=severity),)


def unique(*columns: str, severity: Severity = "fail") -> tuple[Check, ...]:
    """Want the columns together to be unique.

    Examples
    --------
    >>> unique("flight_id")[0].name
    'unique(flight_id)'
    """
    if not columns:
        raise DeclarationError("unique() names no column", next="write ml.unique('id')")
    return (Unique(columns=columns, severity=severity),)


def not_null(*columns: str, severity: Severity = "fail") -> tuple[Check, ...]:
    """Want each of the columns to be without nulls.

    Examples
    --------
    >>> [c.name for c in not_null("a", "b")]
    ['not_null(a)', 'not_null(b)']
    """
    return tuple(NotNull(column=c, severity=severity) for c in columns)


def one_of(column: str, values: Sequence[str | int] | Dataset, *, severity: Severity = "fail") -> tuple[Check, ...]:
    """Want the column's codes to be in a fixed set, or among the keys of a reference dataset.

    Parameters
    ----------
    column : str
    values : sequence or Dataset
        A dataset stands for its key's values at its current published version.
    severity : {"fail", "warn"}
    """
    if isinstance(values, (list, tuple, set, frozenset)):
        return (OneOf(column=column, values=tuple(values), reference=None, severity=severity),)
    return (OneOf(column=column, values=(), reference=values, severity=severity),)  # type: ignore[arg-type]


def between(column: str, low: float, high: float, *, severity: Severity = "fail") -> tuple[Check, ...]:
    """Want the column's numbers between low and high, both included.

    Examples
    --------
    >>> between("distance", 10, 6_000)[0].high
    6000
    """
    if low > high:
        raise DeclarationError(f"between({column!r}, {low}, {high}): low is above high", next="swap the bounds")
    return (Between(column=column, low=low, high=high, severity=severity),)


def matches(column: str, pattern: str, *, severity: Severity = "fail") -> tuple[Check, ...]:
    """Want the column's text to match a regular expression (Rust syntax).

    Examples
    --------
    >>> matches("tailnum", "^N", severity="warn")[0].severity
    'warn'
    """
    return (Matches(column=column, pattern=pattern, severity=severity),)


def sql(query: str, *, severity: Severity = "fail") -> tuple[Check, ...]:
    """Want a DuckDB query over the batch to return no row.

    Examples
    --------
    >>> sql("select 1 where false")[0].name
    'sql(select 1 where false)'
    """
    return (Sql(query=query, severity=severity),)
