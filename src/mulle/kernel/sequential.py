"""Sequential evidence: an interval that may be looked at after every row, and still errs as seldom as it says."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mulle.core.errors import UsageError

__all__ = ["TIGHT_AT", "best_rho", "cluster_means", "confidence_sequence", "likelier", "spans"]

TIGHT_AT = 500
"""Count at which the interval is tightest when nothing else is asked for."""

_NORMAL = 1.96


def best_rho(count: int, alpha: float) -> float:
    """Return the `rho` that makes an end of the interval tightest at a count (as arXiv:2103.06476 suggests).

    It must be fixed before the first look; choosing it anew at every look would undo the guarantee.

    Examples
    --------
    >>> round(best_rho(500, 0.05), 3)
    0.113
    """
    twice = -2 * math.log(2 * alpha)
    return math.sqrt((twice + math.log(twice + 1)) / count)


def confidence_sequence(
    values: NDArray[np.float64], alpha: float = 0.05, rho: float | None = None, *, groups: NDArray[np.int64] | None = None
) -> tuple[float, float, float]:
    """Return the present ends of an asymptotic confidence sequence for a mean; each end errs with `alpha` by itself.

    ``mean +- se * sqrt(2 (t r^2 + 1) / (t r^2) * log(1 + sqrt(t r^2 + 1) / (2 alpha)))`` with t values so far and r = `rho`:
    the one-sided normal mixture of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, Time-uniform central limit theory and
    asymptotic confidence sequences (arXiv:2103.06476), once for each end. All looks together, the mean lies beyond an end
    with probability of about `alpha`, so a caller may stop at whichever look it likes. The law is asymptotic: start
    looking after some tens of values, not at the second.

    Values of one group may be alike (rows of one day share its weather). The standard error is then that of sums within
    groups (Liang and Zeger, Biometrika 73, 1986, 13-22), where it is the larger one, and t shrinks by as much. For few
    groups it is widened by the first term of Student's quantile (Cornish and Fisher, 1938).

    Parameters
    ----------
    values : ndarray of float64, shape (t,)
        In the order they came; not-finite ones are refused.
    alpha : float
        Error level of each end, between 0 and 0.5.
    rho : float, optional
        Where it is tight; `best_rho` of `TIGHT_AT` by default.
    groups : ndarray of int64, shape (t,), optional
        What a value belongs to; without it every value stands for itself.

    Returns
    -------
    low, mean, high : float
        With fewer than two values, or one group, the interval is the whole line (and the mean NaN without any).

    Raises
    ------
    UsageError
        When a value is not finite or `alpha` is not between 0 and 0.5.

    Examples
    --------
    >>> low, mean, high = confidence_sequence(np.linspace(-1, 3, 400), 0.025)
    >>> round(low, 2), round(mean, 2), round(high, 2)
    (0.82, 1.0, 1.18)
    """
    if not 0 < alpha < 0.5:
        raise UsageError(f"alpha is {alpha}", next="give an error level between 0 and 0.5, such as 0.05")
    if not np.isfinite(values).all():
        raise UsageError("a value of the sequence is not finite", next="leave such rows out, and say how many")
    t = len(values)
    mean = float(values.mean()) if t else math.nan
    if t < 2:
        return -math.inf, mean, math.inf
    error = float(values.std(ddof=1)) / math.sqrt(t)
    grouped = error if groups is None else _grouped_error(values - mean, groups)
    if not math.isfinite(grouped):
        return -math.inf, mean, math.inf
    if grouped > error:
        t, error = t * (error / grouped) ** 2, grouped  # type: ignore[assignment]
    scaled = t * (rho if rho is not None else best_rho(TIGHT_AT, alpha)) ** 2
    width = error * math.sqrt(2 * (scaled + 1) / scaled * math.log(1 + math.sqrt(scaled + 1) / (2 * alpha)))
    return mean - width, mean, mean + width


def spans(count: int, parts: int) -> NDArray[np.int64]:
    """Number the `parts` stretches of equal length that a sequence is cut into: groups of what came together.

    Examples
    --------
    >>> spans(7, 3).tolist()
    [0, 0, 0, 1, 1, 2, 2]
    """
    return np.arange(count, dtype=np.int64) * parts // max(count, 1)


def likelier(hits: int, trials: int, usual: float, alarming: float) -> float:
    """Return how much likelier some hits are at an alarming rate than at the usual one.

    Wald's likelihood ratio (Annals of Mathematical Statistics 16, 1945, 117-186). While the true rate is the usual one or
    lower it exceeds ``1 / alpha`` at any look with a probability of at most `alpha` (Ville's inequality).

    Examples
    --------
    >>> round(likelier(2, 100, 0.01, 0.05), 2), likelier(6, 6, 0.01, 0.05) > 20
    (0.44, True)
    """
    misses = trials - hits
    log = hits * math.log(alarming / usual) + misses * math.log((1 - alarming) / (1 - usual))
    return math.exp(min(log, 700.0))


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


def _grouped_error(centred: NDArray[np.float64], groups: NDArray[np.int64]) -> float:
    sums = np.bincount(np.unique(groups, return_inverse=True)[1], weights=centred)
    count = len(sums)
    if count < 2:
        return math.inf
    student = 1 + (_NORMAL**2 + 1) / (4 * (count - 1))
    return student * math.sqrt(count / (count - 1) * float(sums @ sums)) / len(centred)
