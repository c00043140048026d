"""Comparing challenger and champion on the same rows, with an interval that tells luck from difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mulle.kernel.metrics import class_text, losses, measure

__all__ = ["Comparison", "Side", "compare"]

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]

_RESAMPLES = 200
_RESAMPLED_ROWS = 5_000
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
    """

    metric: str
    rows: int
    champion: float
    challenger: float
    difference: float
    low: float
    high: float


def compare(task: str, metric: str, truth: Array, champion: Side, challenger: Side, *, seed: int = 0) -> Comparison:
    """Compare two models on rows that neither has seen.

    Parameters
    ----------
    task, metric : str
    truth : numpy.ndarray, shape (n,)
    champion, challenger : Side
        Answers to the same rows in the same order.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Comparison
        For metrics that are a mean over rows the interval is the normal one of the paired differences, for the others
        a paired bootstrap (Efron and Tibshirani 1993, chapter 13), on a sample of at most 5,000 rows rescaled by the
        root of the rows.

    Raises
    ------
    UsageError
        When there are no rows, or the metric does not fit the task.

    Examples
    --------
    >>> truth = np.array([1.0, 2.0, 3.0, 4.0])
    >>> found = compare("regression", "mae", truth, Side(truth + 1), Side(truth + 0.5))
    >>> found.champion, found.challenger, found.difference
    (1.0, 0.5, -0.5)
    """
    before, after = _measure(task, metric, truth, champion), _measure(task, metric, truth, challenger)
    spread = _paired(task, metric, truth, champion, challenger)
    if spread is None:
        spread = _bootstrap(task, metric, truth, champion, challenger, seed)
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


def _measure(task: str, metric: str, truth: Array, side: Side) -> float:
    return measure([metric], task, truth, side.values, side.probabilities, side.classes)[metric]


def _paired(task: str, metric: str, truth: Array, champion: Side, challenger: Side) -> float | None:
    champion_rows, challenger_rows = _row_values(task, metric, truth, champion), _row_values(task, metric, truth, challenger)
    if champion_rows is None or challenger_rows is None:
        return None
    if len(truth) < 2:
        return float("inf")
    return float(np.std(challenger_rows - champion_rows, ddof=1) / np.sqrt(len(truth)))


def _row_values(task: str, metric: str, truth: Array, side: Side) -> Floats | None:
    if metric in ("mae", "log_loss"):
        return losses(task, truth, side.values, side.probabilities, side.classes)
    if metric == "accuracy":
        return np.asarray(class_text(truth) == class_text(side.values), dtype=np.float64)
    return None


def _bootstrap(task: str, metric: str, truth: Array, champion: Side, challenger: Side, seed: int) -> float:
    n = len(truth)
    if n < 2:
        return float("inf")
    random = np.random.default_rng(seed)
    taken = min(n, _RESAMPLED_ROWS)
    differences = []
    for _ in range(_RESAMPLES):
        rows = random.integers(0, n, taken)
        differences.append(
            _measure(task, metric, truth[rows], _take(challenger, rows))
            - _measure(task, metric, truth[rows], _take(champion, rows))
        )
    return float(np.std(differences, ddof=1) * np.sqrt(taken / n))


def _take(side: Side, rows: npt.NDArray[np.int64]) -> Side:
    return Side(side.values[rows], None if side.probabilities is None else side.probabilities[rows], side.classes)
