"""What a check is, as records: `core.declare.checks` has the words that make them, `lifecycle.data` judges them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Literal

import polars as pl

if TYPE_CHECKING:
    from mulle.core.declare.dataset import Dataset

__all__ = [
    "Between",
    "Bound",
    "Check",
    "ForeignKey",
    "Fresh",
    "Holds",
    "Increasing",
    "Matches",
    "NoDuplicates",
    "NotNull",
    "OneOf",
    "Passes",
    "Rows",
    "RowsAsSource",
    "RowsLikePrevious",
    "SameDistribution",
    "Severity",
    "Sql",
    "Unique",
]

Severity = Literal["warn", "fail"]
Bound = int | float | date | datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One statement about a dataset's batches.

    Attributes
    ----------
    name : str
        In results; it does not change when a bound does, so that results can be charted over time.
    severity : {"fail", "warn"}
        What a failure means: the batch goes to quarantine, or it is published with a warning.
    """

    name: str
    severity: Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows(Check):
    """The batch, or the table after publishing, has at least (and at most) so many rows."""

    at_least: int | None
    at_most: int | None
    of: Literal["batch", "table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsLikePrevious(Check):
    """The batch has about as many rows as the one before; `within` is the largest relative change."""

    within: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsAsSource(Check):
    """The batch has as many rows as the source itself counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unique(Check):
    """The columns together are unique, in the batch and against what stays published; rows with a null pass."""

    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NoDuplicates(Check):
    """No two rows of the batch are equal in every column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotNull(Check):
    """The column has no null (nor NaN)."""

    column: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OneOf(Check):
    """The column's values are in a fixed set, or among a reference dataset's keys; null passes."""

    column: str
    values: tuple[str | int | float | bool, ...]
    reference: Dataset | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignKey(Check):
    """The columns together stand in a reference dataset's columns `to`; rows with a null pass."""

    columns: tuple[str, ...]
    reference: Dataset
    to: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Between(Check):
    """The column's values lie between low and high, both included; null passes."""

    column: str
    low: Bound
    high: Bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches(Check):
    """The column's text matches a regular expression (Rust syntax); null passes."""

    column: str
    pattern: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Holds(Check):
    """An expression over a row's columns is true, or null; text is SQL."""

    expr: pl.Expr | str = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Increasing(Check):
    """In row order, within each group of `by`, no value is below the one before it; nulls are passed over."""

    column: str
    by: tuple[str, ...]
    strictly: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh(Check):
    """The newest value is at most `within` old, and none lies in the future."""

    column: str
    within: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class SameDistribution(Check):
    """The column's population stability index against the published rows, less sampling noise, is at most `psi`."""

    column: str
    psi: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sql(Check):
    """A query that returns the failing rows; the batch is the table of the dataset's name."""

    query: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes(Check):
    """A function of the whole batch that tells what is wrong with it."""

    function: Callable[[pl.DataFrame], object]
