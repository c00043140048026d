"""Sequential evidence: an interval that may be looked at after every row, and still errs as seldom as it says."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mulle.core.errors import UsageError

__all__ = ["TIGHT_AT", "best_rho", "cluster_means", "confidence_sequence"]

TIGHT_AT = 500
"""Count at which the interval is tightest when nothing else is asked for."""


def best_rho(count: int, alpha: float) -> float:
    """Return the `rho` that makes the interval tightest at a count (as arXiv:2103.06476 suggests).

    It must be fixed before the first look; choosing it anew at every look would undo the guarantee.

    Examples
    --------
    >>> round(best_rho(500, 0.05), 3)
    0.126
    """
    return math.sqrt((-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / count)


def confidence_sequence(values: NDArray[np.float64], alpha: float = 0.05, rho: float | None = None) -> tuple[float, float, float]:
    """Return the present interval of an asymptotic confidence sequence for a mean.

    ``mean +- sd * sqrt(2 (t r^2 + 1) / (t^2 r^2) * log(sqrt(t r^2 + 1) / alpha))`` with t values so far and r = `rho`:
    Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, Time-uniform central limit theory and asymptotic confidence
    sequences (arXiv:2103.06476), theorem 2.2. The intervals at all counts together miss the mean with probability of
    about `alpha`, so a caller may stop at whichever look it likes. The law is asymptotic: start looking after some
    tens of values, not at the second.

    Parameters
    ----------
    values : ndarray of float64, shape (t,)
        Independent, in the order they came; not-finite ones are refused.
    alpha : float
        Error level of the two-sided sequence, between 0 and 1.
    rho : float, optional
        Where it is tight; `best_rho` of `TIGHT_AT` by default.

    Returns
    -------
    low, mean, high : float
        With fewer than two values the interval is the whole line (and the mean NaN without any).

    Raises
    ------
    UsageError
        When a value is not finite or `alpha` is not between 0 and 1.

    Examples
    --------
    >>> low, mean, high = confidence_sequence(np.linspace(-1, 3, 400), 0.05)
    >>> round(low, 2), round(mean, 2), round(high, 2)
    (0.82, 1.0, 1.18)
    """
    if not 0 < alpha < 1:
        raise UsageError(f"alpha is {alpha}", next="give an error level between 0 and 1, such as 0.05")
    if not np.isfinite(values).all():
        raise UsageError("a value of the sequence is not finite", next="leave such rows out, and say how many")
    t = len(values)
    mean = float(values.mean()) if t else math.nan
    if t < 2:
        return -math.inf, mean, math.inf
    squared = (rho if rho is not None else best_rho(TIGHT_AT, alpha)) ** 2
    scaled = t * squared + 1
    width = float(values.std(ddof=1)) * math.sqrt(2 * scaled / (t * t * squared) * math.log(math.sqrt(scaled) / alpha))
    return mean - width, mean, mean + width


def cluster_means(values: pl.Series, clusters: pl.Series) -> NDArray[np.float64]:
    """Average values within clusters first, so that rows of one key count as one observation.

    Rows of one key are alike; taken as independent they would feign certainty. Every cluster weighs the same.

    Parameters
    ----------
    values : polars.Series of float, shape (rows,)
    clusters : polars.Series, shape (rows,)
        What a row belongs to.

    Returns
    -------
    ndarray of float64, shape (clusters,)
        In order of first appearance.

    Examples
    --------
    >>> cluster_means(pl.Series([1.0, 3.0, 5.0]), pl.Series(["a", "a", "b"])).tolist()
    [2.0, 5.0]
    """
    frame = pl.DataFrame({"value": values.cast(pl.Float64), "cluster": clusters})
    means = frame.group_by("cluster", maintain_order=True).agg(pl.col("value").mean())["value"]
    return np.asarray(means.to_numpy(), dtype=np.float64)
