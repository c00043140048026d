"""Choosing the features a model keeps: scored on training rows, bounded as declared, the same for the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mulle.core.declare.select import Select
from mulle.core.records.bundle import FeatureSpec

__all__ = ["Selection", "choose_features"]

Matrix = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

_ROWS = {"importance": 50_000, "mutual_information": 4_000}
"""Rows that are scored, at most, drawn by the seed."""

_NEIGHBOURS = 3
"""Of the nearest-neighbour estimate."""

_TREES = {"n_estimators": 100, "num_leaves": 15, "min_child_samples": 20, "learning_rate": 0.1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What was chosen, and by which scores.

    Attributes
    ----------
    by : str
        ``importance`` or ``mutual_information``.
    kept : tuple of str
        In the order the feature function gives them.
    scores : dict
        Every feature's score, the best first.
    """

    by: str
    kept: tuple[str, ...]
    scores: dict[str, float]


def choose_features(
    matrix: Matrix, target: npt.NDArray[np.generic], specs: Sequence[FeatureSpec], *, task: str, select: Select, seed: int
) -> Selection:
    """Choose features on training rows.

    Parameters
    ----------
    matrix : numpy.ndarray, shape (n, k), float32
        Encoded training rows; the holdout must not be among them.
    target : numpy.ndarray, shape (n,)
        Numbers for regression, classes else.
    specs : sequence of FeatureSpec, length k
    task : str
    select : Select
    seed : int
        The same rows, declaration and seed choose the same features.

    Returns
    -------
    Selection
        At least the best feature is kept. ``importance`` is a feature's share of the gain of a small LightGBM;
        ``mutual_information`` is estimated from nearest neighbours in nats (Kraskov et al., doi:10.1103/PhysRevE.69.066138;
        Ross, doi:10.1371/journal.pone.0087357; plain counts between categories and classes), less the same estimate with
        the target shuffled, so that a code with many values does not score by their number alone.
    """
    dice = np.random.default_rng(seed)
    rows = np.sort(dice.permutation(len(matrix))[: _ROWS[select.by]])
    if select.by == "importance":
        scored = _importance(matrix[rows], target[rows], task, seed)
    else:
        scored = _information(matrix[rows], target[rows], specs, task, seed)
    order = sorted(range(len(specs)), key=lambda i: (-scored[i], i))
    kept = {specs[i].name for i in order[: _how_many(scored[order], select)]}
    return Selection(
        by=select.by,
        kept=tuple(s.name for s in specs if s.name in kept),
        scores={specs[i].name: round(float(scored[i]), 9) for i in order},
    )


def _how_many(scores: Floats, select: Select) -> int:
    """Count the best features that every bound keeps; scores come best first."""
    count = len(scores)
    if select.top is not None:
        count = min(count, select.top)
    if select.at_least is not None:
        count = min(count, int((scores >= select.at_least).sum()))
    if select.share is not None:
        reached = np.cumsum(scores) >= select.share * scores.sum() * (1 - 1e-12)
        count = min(count, int(np.argmax(reached)) + 1)
    return max(count, 1)


def _importance(matrix: Matrix, target: npt.NDArray[np.generic], task: str, seed: int) -> Floats:
    from lightgbm import LGBMClassifier, LGBMRegressor

    model = LGBMRegressor if task == "regression" else LGBMClassifier
    # One thread and fixed histograms: the gain's last digits, and with them a tie, must not depend on the machine's cores.
    fixed = {"random_state": seed % 2**31, "n_jobs": 1, "deterministic": True, "force_row_wise": True, "verbosity": -1}
    fitted = model(**_TREES, **fixed, importance_type="gain").fit(matrix, target)
    gain = np.asarray(fitted.feature_importances_, dtype=np.float64)
    return gain / gain.sum() if gain.sum() > 0 else gain


def _information(matrix: Matrix, target: npt.NDArray[np.generic], specs: Sequence[FeatureSpec], task: str, seed: int) -> Floats:
    from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

    estimate = mutual_info_regression if task == "regression" else mutual_info_classif
    discrete = np.array([s.kind == "category" for s in specs])
    filled = _filled(matrix)
    for column in np.flatnonzero(discrete):
        filled[:, column] = _without_rare(filled[:, column])
    shuffled = np.random.default_rng(seed).permutation(target)
    found, chance = (
        estimate(filled, y, discrete_features=discrete, n_neighbors=_NEIGHBOURS, random_state=seed % 2**31, n_jobs=1)
        for y in (target, shuffled)
    )
    return np.maximum(np.asarray(found, dtype=np.float64) - np.asarray(chance, dtype=np.float64), 0.0)


def _without_rare(codes: Floats) -> Floats:
    # A code on fewer rows than the estimate looks at neighbours tells of nothing but itself; all such are one.
    _, place, counts = np.unique(codes, return_inverse=True, return_counts=True)
    return np.where(counts[place] <= _NEIGHBOURS, codes.min() - 1, codes)


def _filled(matrix: Matrix) -> Floats:
    # A gap is a value of its own, below all others by their spread: that it is missing may tell something.
    filled = matrix.astype(np.float64)
    for column in filled.T:
        gaps = np.isnan(column)
        known = column[~gaps]
        if gaps.any():
            column[gaps] = known.min() - max(float(known.std()), 1.0) if len(known) else 0.0
    return filled
