"""What judging a check takes: what it sees, the aggregates it wants from the one pass, and what it found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl

from mulle.core.declare.dataset import Dataset
from mulle.core.errors import DataError
from mulle.core.records.base import Json
from mulle.core.records.dataset import DatasetVersion
from mulle.kernel.dtypes import dtype_text

__all__ = ["ROW", "SAMPLES", "Beside", "Found", "Plan", "Scene", "complete", "found_rows"]

SAMPLES = 20
"""The most failing rows that a result carries."""

ROW = "_row"
"""A row's number in the batch, from 0; no check sees it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What a batch is judged against.

    Attributes
    ----------
    published : polars.LazyFrame or None
        The current published rows, the latest of each identity.
    version : DatasetVersion or None
        The published version.
    references : mapping
        Rows of other datasets by name, for ``one_of`` and ``foreign_key``.
    counted : int or None
        The source's own count of the batch.
    whole : bool
        The rows are the published version itself (an audit), not a new batch.
    corrects : bool
        The rows are published ones with the outcome that labels brought: what tells of a batch's size, age or spread
        tells nothing of them.
    """

    published: pl.LazyFrame | None = None
    version: DatasetVersion | None = None
    references: Mapping[str, pl.LazyFrame] = field(default_factory=dict)
    counted: int | None = None
    whole: bool = False
    corrects: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """All that a check may look at.

    Attributes
    ----------
    rows : polars.LazyFrame
        The batch without bookkeeping columns; `raw` has them.
    schema : mapping
        Of `rows`.
    frame : callable
        Collects the batch, once for all checks that need it whole.
    """

    dataset: Dataset
    raw: pl.LazyFrame
    rows: pl.LazyFrame
    schema: Mapping[str, pl.DataType]
    frame: Callable[[], pl.DataFrame]
    beside: Beside
    now: datetime

    def dtype(self, column: str) -> pl.DataType:
        """Give a column's type.

        Raises
        ------
        DataError
            When the batch has no such column.
        """
        if column not in self.schema:
            raise DataError(f"no column '{column}'; the batch has {', '.join(self.schema)}")
        return self.schema[column]

    def wrong(self, column: str, expected: str) -> DataError:
        """Give the error for a column of the wrong type."""
        return DataError(f"column '{column}' is {dtype_text(self.dtype(column))}, expected {expected}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a check found.

    Attributes
    ----------
    failed : int
        Rows that failed, counted exactly.
    says : str
        What is wrong with those rows; told with their number.
    detail : str
        Told as it is, instead of `says`.
    bad : bool
        Failed though no row did.
    mask : polars.Expr or None
        True for the failing rows; several checks' samples are then read in one pass.
    forward : bool
        Whether the mask of a row depends on nothing after that row, so that the first rows can be judged by themselves.
    numbers : sequence of int
        The first failing rows by their number, where no expression finds them.
    samples : sequence of dict
        Samples that are at hand.
    """

    failed: int = 0
    says: str = ""
    detail: str = ""
    bad: bool = False
    value: float | None = None
    mask: pl.Expr | None = None
    forward: bool = True
    numbers: Sequence[int] = ()
    samples: Sequence[Json] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """A check made ready.

    Attributes
    ----------
    judge : callable
        Takes the probes' values and the number of rows; may raise DataError when the check cannot be judged.
    probes : tuple of polars.Expr
        Aggregates over the batch; those of all checks are taken in one pass.
    """

    judge: Callable[[tuple[Any, ...], int], Found]
    probes: tuple[pl.Expr, ...] = ()


def found_rows(failing: pl.LazyFrame, says: str) -> Found:
    """Count failing rows and number the first of them, in one query.

    Parameters
    ----------
    failing : polars.LazyFrame
        Has the column ``_row``; only what finds the rows is read.
    """
    counted = failing.select(pl.len().alias("rows"), pl.col(ROW).bottom_k(SAMPLES).implode()).collect(engine="streaming")
    return Found(failed=int(counted["rows"][0]), says=says, numbers=sorted(counted[ROW][0].to_list()))


def complete(columns: Sequence[str]) -> pl.Expr:
    """Give the expression that is true where none of the columns is null."""
    return pl.all_horizontal(pl.col(c).is_not_null() for c in columns)
