"""How sure a measured value is: 95% intervals by drawing the rows anew, for every metric at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mulle.kernel.answered import Answers
from mulle.kernel.metrics import lower_is_better, measure_weighted

__all__ = ["DRAWN_ROWS", "RESAMPLES", "draws", "intervals"]

RESAMPLES = 500
DRAWN_ROWS = 4_000
"""More rows than these are stood in for by an even sample, and the spread is scaled by the root of the share."""

Floats = npt.NDArray[np.float64]

_TAIL = 2.5
_SORTED = {"auc", "average_precision"}
"""Metrics that cost a sort of all draws for every class."""
_SORTED_DRAWS = 100
_SORTED_CLASSES = 20


def intervals(
    values: Mapping[str, float], answers: Answers, *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, tuple[float, float]]:
    """Give each metric's 95% interval.

    The percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13), its deviations
    taken from the draws' median: drawing rows anew inflates some metrics, ece most of all, and the value shall lie within
    its interval. Of more than `DRAWN_ROWS` rows an even sample of m is drawn from, and the deviations are scaled by
    sqrt(m / n) (the m out of n bootstrap: Bickel, Goetze and van Zwet, 1997), so that the cost does not grow with the rows.
    All metrics see the same draws.

    Parameters
    ----------
    values : mapping
        Metric that fits the answers to its value on all of them.
    answers : Answers
    seed : int
    resamples : int

    Returns
    -------
    dict
        Metric to (low, high). A metric that is no number has none, nor have auc and average_precision over more than 20
        classes; over more than two they are drawn less often (at least 100 times). Of a single row nothing has one.

    Examples
    --------
    >>> from mulle.kernel.answered import answered
    >>> low, high = intervals({"mae": 49.5}, answered("regression", np.zeros(100), np.arange(100.0)))["mae"]
    >>> low < 49.5 < high
    True
    """
    n = len(answers.truth)
    if n < 2:
        return {}
    kept = answers if n <= DRAWN_ROWS else answers.take(np.linspace(0, n - 1, DRAWN_ROWS).astype(np.int64))
    taken = len(kept.truth)
    drawn = _drawn(list(values), kept, draws(taken, seed=seed, resamples=resamples))
    found = {}
    for name in drawn:
        if np.isfinite(drawn[name]).all() and np.isfinite(values[name]):
            away = np.percentile(drawn[name], [_TAIL, 100 - _TAIL]) - np.median(drawn[name])
            low, high = (values[name] + away * np.sqrt(taken / n)).tolist()
            found[name] = (max(low, 0.0) if lower_is_better(name) else low, high)
    return found


def _drawn(names: Sequence[str], kept: Answers, weights: Floats) -> dict[str, Floats]:
    classes = len(kept.classes)
    few = weights if classes <= 2 else weights[: max(_SORTED_DRAWS, 2 * len(weights) // classes)]
    found = measure_weighted([name for name in names if name not in _SORTED], kept, weights)
    costly = [name for name in names if name in _SORTED and classes <= _SORTED_CLASSES]
    return found | measure_weighted(costly, kept, few)


def draws(n: int, *, seed: int, resamples: int = RESAMPLES) -> Floats:
    """Draw n of n rows with repetition, several times.

    Returns
    -------
    numpy.ndarray of float64, shape (resamples, n)
        How often each row was drawn; each row of it adds up to n.

    Examples
    --------
    >>> draws(10, seed=0, resamples=3).sum(axis=1).tolist()
    [10.0, 10.0, 10.0]
    """
    chosen = np.random.default_rng(seed).integers(0, n, (resamples, n)) + np.arange(resamples)[:, None] * n
    return np.bincount(chosen.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float64)
