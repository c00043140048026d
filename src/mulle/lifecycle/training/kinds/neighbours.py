"""Nearest neighbours whose answer does not depend on which of several equally far neighbours a search happens to find.

scikit-learn's estimators leave that open, so a compiled search answers otherwise on tables with repeated rows. Here all
neighbours at the distance of the last one share what is left of the count.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator

__all__ = ["SAME", "TIED", "Neighbours", "weighed"]

SAME = 1e-10
"""Squared distance below which two rows are one place."""

TIED = 1e-9
"""Squared distances that differ by less are one distance."""

_CELLS = 4_000_000

Matrix = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


class Neighbours(BaseEstimator):  # type: ignore[misc]
    """The mean of the nearest rows' targets (of classes: their shares), by Euclidean distance over all rows.

    Parameters
    ----------
    task : str
    n_neighbors : int
    weights : {"uniform", "distance"}
        Of the neighbours; with ``distance`` one over it, and rows in the very same place alone where there are any.

    Attributes
    ----------
    rows_ : numpy.ndarray of float32, shape (m, k)
    told_ : numpy.ndarray of float64, shape (m, 1) or (m, classes)
        What each row stands for.
    classes_ : numpy.ndarray
        In alphabetical order, for classes.

    Examples
    --------
    >>> rows = np.array([[0], [1], [1], [5]], dtype=np.float32)
    >>> Neighbours(n_neighbors=2, weights="uniform").fit(rows, np.array([0.0, 2, 4, 9])).predict(rows[:1]).tolist()
    [1.5]
    """

    def __init__(self, task: str = "regression", n_neighbors: int = 7, weights: str = "distance") -> None:
        self.task, self.n_neighbors, self.weights = task, n_neighbors, weights

    def fit(self, X: Matrix, y: npt.NDArray[Any]) -> Neighbours:
        """Keep the rows."""
        if self.weights not in ("uniform", "distance"):
            raise ValueError(f"weights is {self.weights!r}: uniform or distance")
        self.rows_ = np.ascontiguousarray(X, dtype=np.float32)
        self.n_features_in_ = self.rows_.shape[1]
        if self.task == "regression":
            self.told_ = np.asarray(y, dtype=np.float64).reshape(-1, 1)
        else:
            self.classes_, codes = np.unique(y, return_inverse=True)
            self.told_ = np.eye(len(self.classes_))[codes]
        return self

    def predict(self, X: Matrix) -> npt.NDArray[Any]:
        """Answer with numbers or classes."""
        said = self._said(X)
        return said[:, 0] if self.task == "regression" else np.asarray(self.classes_[said.argmax(axis=1)])

    def predict_proba(self, X: Matrix) -> Floats:
        """Give the share of each class."""
        return self._said(X)

    def _said(self, X: Matrix) -> Floats:
        rows = self.rows_.astype(np.float64)
        squared = (rows * rows).sum(axis=1)
        count = min(self.n_neighbors, len(rows))
        step = max(1, _CELLS // len(rows))
        parts = []
        for start in range(0, len(X), step):
            asked = np.asarray(X[start : start + step], dtype=np.float64)
            far = np.maximum((asked * asked).sum(axis=1)[:, None] + squared - 2 * asked @ rows.T, 0.0)
            weight = weighed(far, count, by_distance=self.weights == "distance")
            parts.append(weight @ self.told_ / weight.sum(axis=1, keepdims=True))
        return np.concatenate(parts) if parts else np.zeros((0, self.told_.shape[1]))


def weighed(far: Floats, count: int, *, by_distance: bool) -> Floats:
    """Weigh rows by squared distances, shape (n, m): the `count` nearest count, those tied for the last place share it."""
    last = np.partition(far, count - 1, axis=1)[:, count - 1 : count]
    nearer, tied = far < last - TIED, np.abs(far - last) <= TIED
    left = count - nearer.sum(axis=1, keepdims=True)
    weight: Floats = nearer + tied * (left / tied.sum(axis=1, keepdims=True))
    if not by_distance:
        return weight
    here = (far <= SAME) * weight
    away = weight / np.sqrt(np.maximum(far, SAME))
    return np.where(here.sum(axis=1, keepdims=True) > 0, here, away)
