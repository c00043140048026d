"""Whether two histograms differ by more than chance, and how far apart numbers are; `histograms` says how they are made."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mulle.core.records.base import Json
from mulle.kernel.histograms import compared_cells

__all__ = ["beyond_chance", "chance", "chi_square_tail", "excess_chance", "wasserstein", "wasserstein_noise"]

Floats = NDArray[np.float64]

_EXPECTED = 5.0
"""Rows that a cell must be expected to hold for the law of chi-square to be near (Cochran, Biometrics 10, 1954, 417-451)."""

_DECILES = 2.5631031310892007
"""Distance of the outer deciles of a normal law, in standard deviations."""


def chance(expected: Json, actual: Json) -> float:
    """Return how probable so large a difference of two entries is when both have one law; nulls left out.

    Pearson's test of homogeneity over the cells, cells with too few rows put together. Numbers also take Neyman's smooth
    test of order two over the bins (Skandinavisk Aktuarietidskrift 20, 1937, 149-199), which sees a moved or widened
    distribution long before the cells do; the smaller of both counts, times two.

    Parameters
    ----------
    expected, actual : Json
        Entries with the same bins.

    Returns
    -------
    float
        0 to 1; 1 when either has no values.

    Examples
    --------
    >>> a = {"kind": "category", "counts": {"x": 90, "y": 10}, "other": 0, "nulls": 0, "rows": 100}
    >>> b = {"kind": "category", "counts": {"x": 80, "y": 20}, "other": 0, "nulls": 0, "rows": 100}
    >>> chance(a, a), round(chance(a, b), 3)
    (1.0, 0.048)
    """
    c, d = compared_cells(expected, actual)
    if not c.sum() or not d.sum():
        return 1.0
    found = _cells_chance(c, d)
    return min(1.0, 2 * min(found, _smooth_chance(c, d))) if expected["kind"] == "number" else found


def beyond_chance(hits: int, rows: int, reference_rows: int) -> float:
    """Return how probable it is that so many values, or more, are beyond the reference's least and largest when nothing changed.

    The reference's ends are themselves drawn: each further value beyond either of them is the next of both samples together,
    and ``q = rows / (rows + reference_rows)`` how often that is one of the new (Gumbel and von Schelling, Annals of
    Mathematical Statistics 21, 1950, 247-262, in its limit).

    Examples
    --------
    >>> beyond_chance(0, 100, 900), round(beyond_chance(2, 100, 900), 3)
    (1.0, 0.028)
    """
    if not rows or not reference_rows:
        return 1.0
    q = rows / (rows + reference_rows)
    return float(min(1.0, q**hits * (1 + hits * (1 - q))))


def excess_chance(hits: int, rows: int, reference_hits: int, reference_rows: int) -> float:
    """Return how probable it is that a share is so far above the reference's, or further, when both are one.

    The signed root of the likelihood ratio of the two-by-two table, held against the normal law (Wilks, Annals of
    Mathematical Statistics 9, 1938, 60-62).

    Examples
    --------
    >>> excess_chance(5, 100, 50, 1000), excess_chance(40, 100, 50, 1000) < 1e-9
    (0.5, True)
    """
    if not rows or not reference_rows:
        return 1.0
    pooled = (hits + reference_hits) / (rows + reference_rows)
    ratio = sum(_likelihood(h, n, pooled) for h, n in ((hits, rows), (reference_hits, reference_rows)))
    root = math.copysign(math.sqrt(max(0.0, 2 * ratio)), hits / rows - reference_hits / reference_rows)
    return 0.5 * math.erfc(root / math.sqrt(2))


def wasserstein(expected: Json, actual: Json) -> float:
    """Return the first Wasserstein distance of two number entries, in spreads of the expected one; nulls left out.

    The area between both distribution functions, taken as straight within a bin; beyond the outer deciles, where a bin is wide
    and nearly all of it lies at its inner side, as in the tail of a normal law. The spread is the distance of the outer
    deciles over that of a normal law.

    Parameters
    ----------
    expected, actual : Json
        Entries of kind ``number`` with the same bins.

    Returns
    -------
    float
        At least 0; 0 when either has no values.
    """
    c, d = compared_cells(expected, actual)
    n, m = c.sum(), d.sum()
    if not n or not m:
        return 0.0
    knots = _knots(expected, actual)
    if knots is None:
        return 0.0
    gap = np.concatenate([[0.0], np.cumsum(c / n - d / m)])
    return _area(knots, gap, np.maximum(c / n, d / m)) / _spread(knots, c)


def wasserstein_noise(expected: Json, actual: Json) -> float:
    """Return the Wasserstein distance to expect from sampling alone when nothing has changed.

    Both distribution functions then differ by a Brownian bridge, whose mean size at F is ``sqrt(2 / pi * F * (1 - F))``
    times ``sqrt(1 / n + 1 / m)`` (del Barrio, Gine and Matran, Annals of Probability 27, 1999, 1009-1071).
    """
    c, d = compared_cells(expected, actual)
    n, m = c.sum(), d.sum()
    if not n or not m:
        return 0.0
    knots = _knots(expected, actual)
    if knots is None:
        return 0.0
    law = np.concatenate([[0.0], np.cumsum(c / n)])
    size = np.sqrt(np.clip(law * (1 - law), 0.0, None))
    return float(np.sqrt(2 / np.pi * (1 / n + 1 / m)) * _area(knots, size, c / n) / _spread(knots, c))


def chi_square_tail(value: float, freedom: int) -> float:
    """Return the probability that a chi-square variable is above a value.

    By the recurrence from two degrees of freedom to the next (Abramowitz and Stegun, 26.4.8), exact for whole ones.

    Examples
    --------
    >>> round(chi_square_tail(3.841, 1), 3), round(chi_square_tail(18.307, 10), 3), chi_square_tail(0.0, 3)
    (0.05, 0.05, 1.0)
    """
    if freedom < 1 or value <= 0:
        return 1.0
    half = value / 2
    if half == 0:
        return 1.0
    tail = math.erfc(math.sqrt(half)) if freedom % 2 else math.exp(-half)
    for k in range(1 if freedom % 2 else 2, freedom, 2):
        tail += math.exp((k / 2) * math.log(half) - half - math.lgamma(k / 2 + 1))
    return min(1.0, tail)


def _cells_chance(c: Floats, d: Floats) -> float:
    n, m = c.sum(), d.sum()
    both = c + d
    thin = both * min(n, m) / (n + m) < _EXPECTED
    if thin.any():
        c, d = (np.append(part[~thin], part[thin].sum()) for part in (c, d))
        if len(c) > 2 and (c[-1] + d[-1]) * min(n, m) / (n + m) < _EXPECTED:
            least = int(np.argmin((c + d)[:-1]))
            c[least], d[least] = c[least] + c[-1], d[least] + d[-1]
            c, d = c[:-1], d[:-1]
    kept = (c + d) > 0
    c, d = c[kept], d[kept]
    statistic = float(np.sum((c / n - d / m) ** 2 / ((c + d) / (n + m))) / (1 / n + 1 / m))
    return chi_square_tail(statistic, len(c) - 1)


def _smooth_chance(c: Floats, d: Floats) -> float:
    n, m = c.sum(), d.sum()
    share = (c + d) / (n + m)
    first = np.cumsum(share) - share / 2 - 0.5
    spread = float(share @ first**2)
    if spread <= 0:
        return 1.0
    first = first / math.sqrt(spread)
    second = first**2 - float(share @ first**3) * first - 1
    size = float(share @ second**2)
    second = second / math.sqrt(size) if size > 1e-12 else np.zeros_like(second)
    moved = (d / m - c / n) / math.sqrt(1 / n + 1 / m)
    squares = float(moved @ first) ** 2 + float(moved @ second) ** 2
    return chi_square_tail(squares, 2 if size > 1e-12 else 1)


def _likelihood(hits: int, rows: int, pooled: float) -> float:
    told = 0.0
    for count, share in ((hits, pooled), (rows - hits, 1 - pooled)):
        told += count * math.log(count / (rows * share)) if count else 0.0
    return told


def _knots(expected: Json, actual: Json) -> Floats | None:
    """Give the ends of the bins, the open ones closed by the least and the largest value."""
    edges = expected["edges"]
    if not edges:
        return None
    ends = [v for entry in (expected, actual) for v in (entry["low"], entry["high"]) if v is not None]
    return np.asarray([min([*ends, edges[0]]), *edges, max([*ends, edges[-1]])], dtype=np.float64)


def _area(knots: Floats, gap: Floats, shares: Floats) -> float:
    """Give the area of a line's absolute value, broken at the knots; in tails it falls off soon.

    Parameters
    ----------
    knots, gap : numpy.ndarray, shape (bins + 1,)
    shares : numpy.ndarray, shape (bins,)
        How much of the values lies in each bin.
    """
    left, right, width = gap[:-1], gap[1:], np.diff(knots)
    size = np.abs(left) + np.abs(right)
    crossed = (left**2 + right**2) / np.where(size > 0, 2 * size, 1.0)
    areas = np.where(left * right >= 0, size / 2, crossed)
    if len(width) > 4:
        for tail in (slice(0, 2), slice(-2, None)):
            low = np.minimum(np.abs(left[tail]), np.abs(right[tail]))
            # A fifth of the range in the tails of a normal law, half of it where a whole law lies there.
            part = 0.2 + 0.3 * min(1.0, float(shares[tail].sum())) ** 3
            areas[tail] = low + (size[tail] - 2 * low) * part
    return float(np.sum(areas * width))


def _spread(knots: Floats, counts: Floats) -> float:
    law, edges = np.cumsum(counts)[:-1] / counts.sum(), knots[1:-1]
    low, high = (float(np.interp(q, law, edges)) for q in (0.1, 0.9))
    if high > low:
        return (high - low) / _DECILES
    return float(edges[-1] - edges[0]) or 1.0
