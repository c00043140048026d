"""One reading of any fitted estimator: search, evaluation, parity and the native child ask it the same way."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Estimator", "answers", "classes_of"]


class Estimator(Protocol):
    """What a fitted scikit-learn estimator or pipeline offers."""

    def predict(self, X: npt.NDArray[np.float32], /) -> npt.NDArray[np.generic]:
        """Answer rows."""
        ...


def answers(fitted: Estimator, matrix: npt.NDArray[np.float32], task: str) -> npt.NDArray[np.float64]:
    """Answer an encoded matrix with a fitted estimator, in the shape a bundle's model answers in.

    Parameters
    ----------
    fitted : Estimator
        For classes it must have ``predict_proba``.
    matrix : numpy.ndarray of float32, shape (n, k)
    task : str

    Returns
    -------
    numpy.ndarray of float64, shape (n, 1) for regression, (n, classes) else
    """
    if task == "regression":
        return np.asarray(fitted.predict(matrix), dtype=np.float64).reshape(-1, 1)
    return np.asarray(fitted.predict_proba(matrix), dtype=np.float64)  # type: ignore[attr-defined]


def classes_of(fitted: Estimator, task: str) -> tuple[str, ...]:
    """Name a classifier's classes in the order of its probabilities; empty for regression."""
    return () if task == "regression" else tuple(str(c) for c in fitted.classes_)  # type: ignore[attr-defined]
