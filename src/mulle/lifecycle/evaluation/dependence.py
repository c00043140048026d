"""How answers follow one feature: the mean answer when every row is given the same value of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from mulle.core.records.evaluation import Dependence

__all__ = ["ROWS", "STEPS", "partial_dependence"]

ROWS = 200
"""Rows that the mean is taken over, evenly spaced."""

STEPS = 12
"""Values that are tried, at most."""

_SHARED = 5
"""A value that fewer rows carry may tell of somebody."""

_LEAST, _MOST = 0.05, 0.95
_LONG = 60


def partial_dependence(
    features: pl.DataFrame,
    column: str,
    answer: Callable[[pl.DataFrame], npt.NDArray[np.float64]],
    names: Sequence[str],
) -> Dependence | None:
    """Average the answers over the rows for each of some values of a feature.

    Friedman (2001), Greedy Function Approximation: A Gradient Boosting Machine, section 8.2. Where features go together, it asks
    the model about rows that cannot be.

    Parameters
    ----------
    features : polars.DataFrame, shape (n, any)
        The feature function's output.
    column : str
        Numbers and times are tried at quantiles from 5% to 95%, categories at their most frequent values.
    answer : callable
        From such rows to float64, shape (rows, len(names)).
    names : sequence of str
        Of the answers: the target, or classes.

    Returns
    -------
    Dependence or None
        None for a column that is none of these (text, lists), or has fewer than two values.

    Examples
    --------
    >>> rows = pl.DataFrame({"x": [1.0, 2.0, 3.0] * 5, "c": ["a", "b", "b"] * 5})
    >>> partial_dependence(rows, "c", lambda r: (r["c"] == "b").cast(float).to_numpy()[:, None], ["y"]).answers
    {'y': (0.0, 1.0)}
    """
    kind, values = _tried(features[column])
    if len(values) < 2:
        return None
    rows = features[np.linspace(0, features.height - 1, min(features.height, ROWS)).astype(np.int64)]
    repeated = pl.concat([rows] * len(values)).with_columns(
        values.gather(np.repeat(np.arange(len(values)), rows.height)).cast(features.schema[column]).alias(column)
    )
    means = answer(repeated).reshape(len(values), rows.height, len(names)).mean(axis=1)
    shown = tuple(_text(value) for value in values.to_list())
    return Dependence(
        column=column, kind=kind, at=shown, answers={name: tuple(means[:, i].tolist()) for i, name in enumerate(names)}
    )


def _tried(values: pl.Series) -> tuple[str, pl.Series]:
    dtype, known = values.dtype, values.drop_nulls()
    if isinstance(dtype, (pl.Date, pl.Datetime)):
        return "time", _quantiles(known.to_physical()).cast(known.to_physical().dtype).cast(dtype).unique().sort()
    if dtype.is_numeric():
        finite = known.filter(known.is_finite()) if dtype.is_float() else known
        return "number", _quantiles(finite).cast(dtype).unique().sort()
    if isinstance(dtype, (pl.String, pl.Categorical, pl.Enum, pl.Boolean)):
        counts = known.cast(pl.String).alias("value").value_counts().filter(pl.col("count") >= _SHARED)
        common = counts.sort(["count", "value"], descending=[True, False]).head(STEPS)["value"].sort()
        return "category", common == "true" if dtype == pl.Boolean else common
    return "", values.head(0)


def _quantiles(numbers: pl.Series) -> pl.Series:
    # Of what many rows have, the values themselves; the ends of a range are single rows' own.
    shares = np.linspace(_LEAST, _MOST, STEPS)
    found = [numbers.quantile(float(share), "nearest") for share in shares] if len(numbers) else []
    return pl.Series([f for f in found if f is not None], dtype=pl.Float64)


def _text(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= _LONG else f"{text[: _LONG - 3]}..."
