"""Comparing challenger and champion on the same rows, with an interval that tells luck from difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from mulle.core.declare.metric import Metric
from mulle.core.errors import DataError
from mulle.kernel.answered import Answers, answered, row_log_loss
from mulle.kernel.metrics import measure_weighted
from mulle.lifecycle.evaluation.bootstrap import DRAWN_ROWS, draws
from mulle.lifecycle.evaluation.own import REPEATS, call_metric

__all__ = ["Comparison", "Side", "compare"]

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]

_RESAMPLES = 200
_NORMAL_95 = 1.959964


@dataclass(frozen=True, slots=True)
class Side:
    """One model's answers.

    Attributes
    ----------
    values : numpy.ndarray, shape (n,)
    probabilities : numpy.ndarray, shape (n, classes), or None
    classes : tuple of str
        The columns of `probabilities`; each side has its own.
    """

    values: Array
    probabilities: Floats | None = None
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Champion and challenger on the same rows.

    Attributes
    ----------
    metric : str
    rows : int
    champion, challenger : float
        The metric of each.
    difference, low, high : float
        Challenger minus champion, with its 95% interval.
    of : str
        What the rows are, in words.
    """

    metric: str
    rows: int
    champion: float
    challenger: float
    difference: float
    low: float
    high: float
    of: str = "rows"


def compare(
    task: str,
    metric: str,
    truth: Array,
    champion: Side,
    challenger: Side,
    *,
    seed: int = 0,
    own: Metric | None = None,
    rows: pl.DataFrame | None = None,
) -> Comparison:
    """Compare two models on rows that neither has seen.

    Parameters
    ----------
    task, metric : str
    truth : numpy.ndarray, shape (n,)
    champion, challenger : Side
        Answers to the same rows in the same order.
    seed : int
        Of the bootstrap.
    own : Metric, optional
        The project's own metric of that name.
    rows : polars.DataFrame, optional
        The raw rows, for it.

    Returns
    -------
    Comparison
        For metrics that are a mean over rows the interval is the normal one of the paired differences, for the others
        a paired bootstrap (Efron and Tibshirani 1993, chapter 13), on an even sample of at most `DRAWN_ROWS` rows rescaled
        by the root of the share, but for the project's own metrics, which see all.

    Raises
    ------
    UsageError
        When there are no rows, or the metric does not fit the task.
    DataError
        When the project's own metric fails.

    Examples
    --------
    >>> truth = np.array([1.0, 2.0, 3.0, 4.0])
    >>> found = compare("regression", "mae", truth, Side(truth + 1), Side(truth + 0.5))
    >>> found.champion, found.challenger, found.difference
    (1.0, 0.5, -0.5)
    """
    first, second = (answered(task, truth, side.values, side.probabilities, side.classes) for side in (champion, challenger))
    if own is not None:
        before, after = (call_metric(own, side, rows) for side in (first, second))
        spread = _own(own, first, second, rows, seed)
    else:
        once = np.ones((1, len(truth)))
        before, after = (float(measure_weighted([metric], side, once)[metric][0]) for side in (first, second))
        paired = _paired(metric, first, second)
        spread = _bootstrap(metric, first, second, seed) if paired is None else paired
    difference = after - before
    return Comparison(
        metric=metric,
        rows=len(truth),
        champion=before,
        challenger=after,
        difference=difference,
        low=difference - _NORMAL_95 * spread,
        high=difference + _NORMAL_95 * spread,
    )


def _paired(metric: str, champion: Answers, challenger: Answers) -> float | None:
    """Give the standard error of the difference where the metric is a mean over rows."""
    before, after = _row_values(metric, champion), _row_values(metric, challenger)
    if before is None or after is None:
        return None
    return float(np.std(after - before, ddof=1) / np.sqrt(len(before))) if len(before) > 1 else float("inf")


def _row_values(metric: str, answers: Answers) -> Floats | None:
    if metric == "mae":
        return np.abs(np.asarray(answers.values, dtype=np.float64) - np.asarray(answers.truth, dtype=np.float64))
    if metric == "log_loss":
        return row_log_loss(answers)
    if metric == "accuracy":
        return np.asarray(answers.truth_codes == answers.value_codes, dtype=np.float64)
    return None


def _bootstrap(metric: str, champion: Answers, challenger: Answers, seed: int) -> float:
    n = len(champion.truth)
    if n < 2:
        return float("inf")
    taken = min(n, DRAWN_ROWS)
    if taken < n:
        even = np.linspace(0, n - 1, taken).astype(np.int64)
        champion, challenger = champion.take(even), challenger.take(even)
    drawn = draws(taken, seed=seed, resamples=_RESAMPLES)
    before, after = (measure_weighted([metric], side, drawn)[metric] for side in (champion, challenger))
    return float(np.std(after - before, ddof=1) * np.sqrt(taken / n))


def _own(metric: Metric, champion: Answers, challenger: Answers, rows: pl.DataFrame | None, seed: int) -> float:
    n = len(champion.truth)
    if n < 2:
        return float("inf")
    dice = np.random.default_rng(seed)
    chosen = [dice.integers(0, n, n) for _ in range(REPEATS)]
    try:
        differences = [call_metric(metric, challenger, rows, at) - call_metric(metric, champion, rows, at) for at in chosen]
    except DataError:
        return float("inf")
    return float(np.std(differences, ddof=1))
