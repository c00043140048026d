"""Measuring a challenger on the holdout: every metric of its task, whole and slice by slice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from mulle.kernel.metrics import measure, metrics_for

__all__ = ["MOST_SLICES", "by_slice", "evaluate"]

MOST_SLICES = 200
"""Values of a column that are measured apart, the most frequent first."""

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]


def evaluate(
    task: str, truth: Array, values: Array, probabilities: Floats | None = None, classes: Sequence[str] = ()
) -> dict[str, float]:
    """Measure answers by every metric of the task.

    Parameters
    ----------
    task : str
    truth, values : numpy.ndarray, shape (n,)
    probabilities : numpy.ndarray, shape (n, classes), or None
        Without, classes are measured by accuracy and f1 alone.
    classes : sequence of str

    Returns
    -------
    dict
        Metric to value.

    Raises
    ------
    UsageError
        When there are no rows.

    Examples
    --------
    >>> evaluate("regression", np.array([1.0, 3.0]), np.array([1.0, 4.0]))["mae"]
    0.5
    """
    names = metrics_for(task)
    if task != "regression" and probabilities is None:
        names = ("accuracy", "f1")
    return measure(names, task, truth, values, probabilities, classes)


def by_slice(
    column: pl.Series,
    task: str,
    truth: Array,
    values: Array,
    probabilities: Floats | None = None,
    classes: Sequence[str] = (),
) -> dict[str, tuple[int, dict[str, float]]]:
    """Measure answers for each value of a raw column.

    Parameters
    ----------
    column : polars.Series, shape (n,)
        Null is a slice of its own, named ``null``.
    task, truth, values, probabilities, classes
        As for `evaluate`.

    Returns
    -------
    dict
        Value as text to its number of rows and metrics; at most `MOST_SLICES`, the largest first.

    Examples
    --------
    >>> by_slice(pl.Series("origin", ["EWR", "JFK", "EWR"]), "regression", np.ones(3), np.array([1.0, 2, 2]))["EWR"][0]
    2
    """
    named = column.cast(pl.String).fill_null("null").alias("value").to_frame().with_row_index("row")
    groups = named.group_by("value").agg("row").sort(pl.col("row").list.len(), "value", descending=[True, False])
    found = {}
    for value, rows in groups.head(MOST_SLICES).iter_rows():
        part = None if probabilities is None else probabilities[rows]
        found[value] = (len(rows), evaluate(task, truth[rows], values[rows], part, classes))
    return found
