"""How frequent a code is, as a number: for categories whose commonness tells more than their name."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin

__all__ = ["Frequencies"]

Matrix = npt.NDArray[np.float32]


class Frequencies(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Replace each code by its share of the rows that were fitted on; one never seen there has the share 0.

    Attributes
    ----------
    codes_, shares_ : list of numpy.ndarray
        One of each a column.

    Examples
    --------
    >>> Frequencies().fit([[1.0], [1.0], [2.0], [3.0]]).transform([[1.0], [9.0]]).ravel().tolist()
    [0.5, 0.0]
    """

    def fit(self, X: Any, y: Any = None) -> Frequencies:
        """Count codes; the target is not looked at."""
        del y
        matrix = np.asarray(X, dtype=np.float32)
        self.n_features_in_ = matrix.shape[1]
        counted = [np.unique(column, return_counts=True) for column in matrix.T]
        self.codes_ = [codes for codes, _ in counted]
        self.shares_ = [(counts / len(matrix)).astype(np.float32) for _, counts in counted]
        return self

    def transform(self, X: Any) -> Matrix:
        """Give each code's share."""
        matrix = np.asarray(X, dtype=np.float32)
        made = np.zeros_like(matrix)
        for i, (codes, shares) in enumerate(zip(self.codes_, self.shares_, strict=True)):
            place = np.searchsorted(codes, matrix[:, i]).clip(max=len(codes) - 1)
            made[:, i] = np.where(codes[place] == matrix[:, i], shares[place], 0.0)
        return made
