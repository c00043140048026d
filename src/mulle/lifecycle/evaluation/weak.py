"""Where a model is weak: the slices of one column whose loss is above the rest's by more than noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import polars as pl

from mulle.core.records.evaluation import WeakSlice

__all__ = ["MIN_ROWS", "weak_slices"]

MIN_ROWS = 30
"""A slice has at least so many rows, and at least one in a hundred."""

_SHARE = 0.01
_PARTS = 5
_MOST_ROWS = 50_000
_MOST_COLUMNS = 200
_ERROR = 0.05

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


def weak_slices(
    columns: pl.DataFrame, losses: Floats, *, metric: str, most: int = 3, min_rows: int = MIN_ROWS
) -> tuple[WeakSlice, ...]:
    """Find the worst slices over one column each.

    A slice is a value of a text or truth column, a fifth of a number's or a time's range by quantiles, or its nulls. Each
    slice is held against all other rows by Welch's t (1947); its lower bound is one-sided at 5%, divided by the number of
    slices looked at (Bonferroni), so that with a chance of 95% no slice is named that is not worse. Ranking by effect with
    a test against the rest follows Chung et al., Automated Data Slicing for Model Validation (2019).

    Parameters
    ----------
    columns : polars.DataFrame, shape (n, any)
        Raw columns and features; columns of other types, and texts that nearly all differ, are passed over.
    losses : numpy.ndarray of float64, shape (n,)
    metric : str
        What the losses are, for the record.
    most : int
        Slices named; of two that hold the same rows the first counts.
    min_rows : int

    Returns
    -------
    tuple of WeakSlice
        Largest lower bound first; empty when nothing is above noise.

    Examples
    --------
    >>> place = pl.DataFrame({"place": ["a", "b"] * 100})
    >>> weak_slices(place, np.tile([1.0, 5.0, 1.5, 5.5], 50), metric="mae")[0].value
    'b'
    """
    if len(losses) > _MOST_ROWS:
        even = np.linspace(0, len(losses) - 1, _MOST_ROWS).astype(np.int64)
        columns, losses = columns[even], losses[even]
    n = len(losses)
    least = max(min_rows, math.ceil(_SHARE * n), 2)
    if n < 2 * least or not np.isfinite(losses).all():
        return ()
    looked, found = 0, []
    for name in columns.columns[:_MOST_COLUMNS]:
        for value, rows, inside, outside, error, freedom in _compared(columns[name], losses, least):
            looked += 1
            found.append((name, value, rows, inside, outside, error, freedom))
    scored = [
        WeakSlice(
            column=name, value=value, rows=rows, metric=metric, inside=inside, outside=outside, worse=inside - outside,
            low=inside - outside - _quantile(1 - _ERROR / looked, freedom) * error,
        )
        for name, value, rows, inside, outside, error, freedom in found
    ]  # fmt: skip
    ranked = sorted((s for s in scored if s.low > 0), key=lambda s: (-s.low, s.column, s.value))
    return _distinct(ranked)[:most]


def _compared(column: pl.Series, losses: Floats, least: int) -> Iterator[tuple[str, int, float, float, float, float]]:
    """Give per slice its name, rows, mean inside and outside, and the difference's standard error and degrees of freedom."""
    split = _codes(column)
    if split is None:
        return
    codes, names = split
    n = len(losses)
    # Against the overall mean, so that squares of large losses do not cancel.
    centre = float(losses.mean())
    away = losses - centre
    rows = np.bincount(codes, minlength=len(names))
    sums, squares = (np.bincount(codes, weights=part, minlength=len(names)) for part in (away, away**2))
    for code in np.flatnonzero((rows >= least) & (n - rows >= least)).tolist():
        a, b = int(rows[code]), n - int(rows[code])
        inside, outside = sums[code] / a, (sums.sum() - sums[code]) / b
        of_inside = max(squares[code] / a - inside**2, 0.0) / (a - 1)
        of_outside = max((squares.sum() - squares[code]) / b - outside**2, 0.0) / (b - 1)
        error = math.sqrt(of_inside + of_outside)
        freedom = error**4 / (of_inside**2 / (a - 1) + of_outside**2 / (b - 1)) if error > 0 else math.inf
        yield names[code], a, float(inside) + centre, float(outside) + centre, error, freedom


def _codes(column: pl.Series) -> tuple[Codes, list[str]] | None:
    """Number each row's slice; None for a column that has no slices."""
    dtype = column.dtype
    if isinstance(dtype, pl.Boolean) or dtype in (pl.String, pl.Categorical, pl.Enum):
        text = column.cast(pl.String)
        if text.n_unique() > max(len(text) / 2, 2):
            return None
        names = text.unique(maintain_order=True).to_list()
        place = {name: number for number, name in enumerate(names)}
        return np.fromiter((place[v] for v in text.to_list()), np.int64, len(text)), ["null" if v is None else v for v in names]
    if dtype.is_numeric() or dtype.is_temporal():
        return _ranges(column)
    return None


def _ranges(column: pl.Series) -> tuple[Codes, list[str]]:
    physical = (column.to_physical() if column.dtype.is_temporal() else column).cast(pl.Float64).to_numpy()
    known = np.isfinite(physical)
    if not known.any():
        return np.zeros(len(physical), dtype=np.int64), ["null"]
    # The ends are values that occur, so that they can be written in the column's own units.
    edges = np.unique(np.quantile(physical[known], np.linspace(0, 1, _PARTS + 1), method="lower"))
    inner = edges[1:-1]
    codes = np.where(known, np.searchsorted(inner, physical, side="right"), len(inner) + 1)
    said = [_written(edge, column.dtype) for edge in edges.tolist()]
    if len(edges) == 1:
        return codes.astype(np.int64), [said[0], "null"]
    names = [f"[{low}, {high})" for low, high in pairwise(said)]
    return codes.astype(np.int64), [*names[:-1], f"{names[-1][:-1]}]", "null"]


def _written(edge: float, dtype: pl.DataType) -> str:
    if dtype.is_temporal():
        value = pl.Series([int(edge)]).cast(dtype)[0]
        return value.isoformat(timespec="minutes")[:16] if hasattr(value, "hour") else str(value)
    return f"{edge:.6g}"


def _quantile(chance: float, freedom: float) -> float:
    """Give Student's t quantile by the first terms of its expansion about the normal one (Abramowitz and Stegun 26.7.5)."""
    z = NormalDist().inv_cdf(chance)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def _distinct(ranked: list[WeakSlice]) -> tuple[WeakSlice, ...]:
    # A raw column and the feature made of it name the same rows twice.
    seen: dict[tuple[int, float], WeakSlice] = {}
    for found in ranked:
        seen.setdefault((found.rows, round(found.inside, 9)), found)
    return tuple(seen.values())
