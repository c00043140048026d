"""Measuring a challenger: every metric that fits, whole and slice by slice, each with its interval."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from mulle.core.declare.metric import Metric
from mulle.core.errors import DataError
from mulle.core.records.evaluation import Calibration, CalibrationBin, Measured
from mulle.kernel.answered import Answers
from mulle.kernel.metrics import ECE_BINS, measure, measure_weighted, metrics_for
from mulle.lifecycle.evaluation.bootstrap import intervals
from mulle.lifecycle.evaluation.own import call_metric, own_interval

__all__ = ["MOST_SLICES", "by_slice", "calibrate", "evaluate", "measured", "slice_rows"]

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
        Without, classes are measured by what needs none.
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
    names = metrics_for(task, probabilities=probabilities is not None)
    return measure(names, task, truth, values, probabilities, classes)


def measured(
    answers: Answers,
    *,
    rows: pl.DataFrame | None = None,
    own: Iterable[Metric] = (),
    sure_of: Collection[str] | None = None,
    seed: int = 0,
) -> Measured:
    """Measure answers by every metric of the task and by the project's own.

    Parameters
    ----------
    answers : Answers
    rows : polars.DataFrame, optional
        The answers' raw rows, for metrics of the project's own that ask for them.
    own : iterable of Metric
        One that fails is told in `failed` and stops nothing.
    sure_of : collection of str, optional
        Metrics that get a 95% interval; by default all.
    seed : int

    Examples
    --------
    >>> from mulle.kernel.answered import answered
    >>> measured(answered("regression", np.zeros(3), np.ones(3))).intervals["mae"]
    (1.0, 1.0)
    """
    names = metrics_for(answers.task, probabilities=answers.probabilities is not None)
    once = measure_weighted(names, answers, np.ones((1, len(answers.truth))))
    metrics = {name: float(found[0]) for name, found in once.items()}
    drawn = {name: value for name, value in metrics.items() if sure_of is None or name in sure_of}
    sure = intervals(drawn, answers, seed=seed) if drawn else {}
    failed = {}
    for metric in own:
        try:
            metrics[metric.name] = call_metric(metric, answers, rows)
            if sure_of is None or metric.name in sure_of:
                sure |= own_interval(metric, metrics[metric.name], answers, rows, seed=seed)
        except DataError as error:
            failed[metric.name] = error.detail
    return Measured(rows=len(answers.truth), metrics=metrics, intervals=sure, failed=failed)


def by_slice(
    column: pl.Series,
    answers: Answers,
    *,
    rows: pl.DataFrame | None = None,
    own: Sequence[Metric] = (),
    sure_of: Collection[str] = (),
    seed: int = 0,
) -> dict[str, Measured]:
    """Measure answers for each value of a raw column.

    Parameters
    ----------
    column : polars.Series, shape (n,)
        Null is a slice of its own, named ``null``.
    answers : Answers
        Of the n rows.
    rows, own, sure_of, seed
        As for `measured`; by default no metric gets an interval.

    Returns
    -------
    dict
        Value as text to what was measured; at most `MOST_SLICES`, the largest first.

    Examples
    --------
    >>> from mulle.kernel.answered import answered
    >>> three = answered("regression", np.ones(3), np.array([1.0, 2, 2]))
    >>> by_slice(pl.Series("origin", ["EWR", "JFK", "EWR"]), three)["EWR"].rows
    2
    """
    return {
        value: measured(answers.take(at), rows=None if rows is None else rows[at], own=own, sure_of=sure_of, seed=seed)
        for value, at in slice_rows(column).items()
    }


def slice_rows(column: pl.Series) -> dict[str, npt.NDArray[np.int64]]:
    """Find the positions of each value's rows, the most frequent values first; null is named ``null``.

    Examples
    --------
    >>> {value: rows.tolist() for value, rows in slice_rows(pl.Series(["b", None, "b"])).items()}
    {'b': [0, 2], 'null': [1]}
    """
    named = column.cast(pl.String).fill_null("null").alias("value").to_frame().with_row_index("row")
    groups = named.group_by("value").agg("row").sort(pl.col("row").list.len(), "value", descending=[True, False])
    return {value: np.asarray(rows, dtype=np.int64) for value, rows in groups.head(MOST_SLICES).iter_rows()}


def calibrate(answers: Answers, *, bins: int = ECE_BINS) -> Calibration | None:
    """Measure how far answers are from what is observed, on average.

    For classes the expected calibration error over bins of equal width (Naeini, Cooper and Hauskrecht, 2015), of the
    second of two classes or, of more, of the answered one (Guo et al., 2017); for regression the mean error in standard
    deviations of the target.

    Returns
    -------
    Calibration or None
        None for classes without probabilities.

    Examples
    --------
    >>> from mulle.kernel.answered import answered
    >>> calibrate(answered("regression", np.array([0.0, 2.0]), np.array([1.0, 3.0]))).bias
    1.0
    """
    n = len(answers.truth)
    if answers.task == "regression":
        truth, values = (np.asarray(side, dtype=np.float64) for side in (answers.truth, answers.values))
        bias, spread = float(np.mean(values - truth)), float(np.std(truth))
        return Calibration(rows=n, error=abs(bias) / spread if spread > 0 else abs(bias), bias=bias)
    if answers.probabilities is None:
        return None
    said, hit = answers.confidence()
    place = np.clip(np.nan_to_num(said * bins), 0, bins - 1).astype(np.int64)
    rows = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, weights=part, minlength=bins) for part in (said, hit)]
    found = tuple(
        CalibrationBin(
            low=b / bins, high=(b + 1) / bins, rows=int(rows[b]), said=sums[0][b] / rows[b], observed=sums[1][b] / rows[b]
        )
        for b in range(bins)
        if rows[b]
    )
    error = float(np.abs(sums[0] - sums[1]).sum() / n)
    brier = float(measure_weighted(["brier"], answers, np.ones((1, n)))["brier"][0])
    return Calibration(rows=n, error=error, brier=brier, bins=found)
