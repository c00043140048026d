"""What each column tells about the target: mutual information on a seeded sample, beside what chance would give."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mulle.core.records.exploration import Relation
from mulle.lifecycle.data.exploration.profile import kind_of, texts

__all__ = ["ROWS", "relations", "task_of"]

ROWS = 10_000
"""Rows that the estimates are made on, at most."""

_FEWEST = 30
_CLASSES = 20
_CELLS = 50
_PER_CELL = 5  # rows that a number's values must have on average to be taken one by one


def task_of(target: pl.Series) -> str:
    """Say how a target is taken: numbers with more than 20 values are a ``regression``, all else ``classification``.

    Examples
    --------
    >>> task_of(pl.Series(["a", "b"])), task_of(pl.Series(range(100)))
    ('classification', 'regression')
    """
    return "regression" if kind_of(target) != "category" and target.n_unique() > _CLASSES else "classification"


def relations(seen: pl.DataFrame, target: str, *, seed: int = 0) -> tuple[str, tuple[Relation, ...], int]:
    """Measure the mutual information of every column with the target.

    For two numbers the nearest-neighbour estimate of Kraskov, Stoegbauer and Grassberger (Phys. Rev. E 69, 2004, 066138),
    for a number and a category that of Ross (PLoS ONE 9, 2014, e87357), for two categories the plug-in estimate, as
    scikit-learn has them. Each estimate is made again with the target shuffled, which is what it gives for nothing.

    Parameters
    ----------
    seen : polars.DataFrame
        What `readable` gave; must hold the target.
    target : str
    seed : int
        Of the sample, of the estimator's jitter and of the shuffle.

    Returns
    -------
    str
        ``regression`` or ``classification``.
    tuple of Relation
        Most information first; columns that were not measured last.
    int
        Rows in the sample: those with a target, at most 10,000.

    Examples
    --------
    >>> frame = pl.DataFrame({"y": [i % 7 for i in range(700)], "x": [i % 7 for i in range(700)], "n": ["a"] * 700})
    >>> task, found, rows = relations(frame, "y")
    >>> task, found[0].column, round(found[0].information, 2), found[1].why, rows
    ('classification', 'x', 1.95, 'constant', 700)
    """
    known = seen.filter(pl.col(target).is_not_null())
    sample = known.sample(min(ROWS, known.height), seed=seed)
    task = task_of(known[target])
    found = [_relation(sample[name], sample[target], task, seed) for name in sample.columns if name != target]
    return (
        task,
        tuple(sorted(found, key=lambda r: (-(r.information if r.information is not None else -1.0), r.column))),
        sample.height,
    )


def _relation(column: pl.Series, target: pl.Series, task: str, seed: int) -> Relation:
    from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

    there = column.is_not_null() & (column.is_finite() if column.dtype.is_float() else True)
    if task == "regression" and target.dtype.is_float():
        there &= target.is_finite()
    x, y = column.filter(there), target.filter(there)
    why = _unfit(x, y, task)
    if why:
        return Relation(column=column.name, information=None, floor=None, rows=len(x), why=why)
    discrete = kind_of(x) == "category" or x.n_unique() <= min(_CELLS, len(x) / _PER_CELL)
    inputs = (_codes(x) if discrete else _numbers(x)).reshape(-1, 1)
    outputs = _numbers(y) if task == "regression" else _codes(y)
    estimate = mutual_info_regression if task == "regression" else mutual_info_classif
    shuffled = np.random.default_rng(seed).permutation(outputs)
    told, floor = (
        float(estimate(inputs, given, discrete_features=discrete, random_state=seed)[0]) for given in (outputs, shuffled)
    )
    return Relation(column=column.name, information=told, floor=floor, rows=len(x))


def _unfit(x: pl.Series, y: pl.Series, task: str) -> str:
    if len(x) < _FEWEST:
        return f"fewer than {_FEWEST} rows with both"
    if x.n_unique() == 1 or y.n_unique() == 1:
        return "constant"
    if kind_of(x) == "category" and x.n_unique() > len(x) / 2:
        return "nearly every row has a value of its own"
    if task == "classification" and y.n_unique() > len(y) / 2:
        return "nearly every row has a target of its own"
    return ""


def _numbers(values: pl.Series) -> NDArray[np.float64]:
    physical = values.to_physical() if values.dtype.is_temporal() else values
    return np.asarray(physical.cast(pl.Float64).to_numpy(), dtype=np.float64)


def _codes(values: pl.Series) -> NDArray[np.int64]:
    # The most frequent values one by one, the rest as one: with more cells than that, the estimate is mostly its own bias.
    text = texts(values).rename("value")
    tally = text.value_counts().sort(["count", "value"], descending=[True, False]).head(_CELLS - 1)
    codes = {value: code for code, value in enumerate(tally["value"])}
    return np.asarray([codes.get(value, _CELLS) for value in text], dtype=np.int64)
