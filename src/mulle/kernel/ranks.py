"""Measures by order: areas under curves and medians, for many weightings of the same rows at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["area", "average_precision", "weighted_median"]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def area(positive: Flags, score: Floats, weights: Floats) -> Floats:
    """Give the area under the receiver operating characteristic: the Mann-Whitney statistic, ties counting one half.

    Parameters
    ----------
    positive : numpy.ndarray of bool, shape (n,)
    score : numpy.ndarray, shape (n,)
    weights : numpy.ndarray, shape (r, n)

    Returns
    -------
    numpy.ndarray, shape (r,)
        NaN where there is one kind of rows alone.

    Examples
    --------
    >>> area(np.array([False, True, True]), np.array([0.1, 0.4, 0.4]), np.ones((1, 3))).tolist()
    [1.0]
    """
    up, down = _by_score(positive, score, weights)
    below = np.cumsum(down, axis=1) - down
    pairs = up.sum(axis=1) * down.sum(axis=1)
    won = np.sum(up * (below + down / 2), axis=1)
    found: Floats = np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
    return found


def average_precision(positive: Flags, score: Floats, weights: Floats) -> Floats:
    """Give the mean precision over the positives, each at its own threshold; 0 where there is no positive.

    Parameters
    ----------
    positive, score, weights
        As for `area`.

    Returns
    -------
    numpy.ndarray, shape (r,)

    Examples
    --------
    >>> average_precision(np.array([False, True]), np.array([0.1, 0.4]), np.ones((1, 2))).tolist()
    [1.0]
    """
    up, down = (part[:, ::-1] for part in _by_score(positive, score, weights))
    found = np.cumsum(up, axis=1)
    taken = found + np.cumsum(down, axis=1)
    precision = np.divide(found, taken, out=np.zeros_like(found), where=taken > 0)
    total = up.sum(axis=1)
    mean: Floats = np.divide(np.sum(up * precision, axis=1), total, out=np.zeros_like(total), where=total > 0)
    return mean


def weighted_median(values: Floats, weights: Floats) -> Floats:
    """Give the median of values under weights, the middle of two where both halves weigh the same.

    Parameters
    ----------
    values : numpy.ndarray, shape (n,)
    weights : numpy.ndarray, shape (r, n)

    Returns
    -------
    numpy.ndarray, shape (r,)

    Examples
    --------
    >>> weighted_median(np.array([3.0, 1.0, 2.0, 9.0]), np.ones((1, 4))).tolist()
    [2.5]
    """
    if np.isnan(values).any():
        return np.full(len(weights), np.nan)
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[:, order], axis=1)
    half = reached[:, -1:] / 2
    ordered = values[order]
    return np.asarray((ordered[np.argmax(reached >= half, axis=1)] + ordered[np.argmax(reached > half, axis=1)]) / 2)


def _by_score(positive: Flags, score: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Weigh the positive and the negative rows of each distinct score, lowest first; shapes (r, scores)."""
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    drawn = weights[:, order]
    up = np.where(positive[order], drawn, 0.0)
    return np.add.reduceat(up, starts, axis=1), np.add.reduceat(drawn - up, starts, axis=1)
