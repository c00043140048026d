"""Estimators that were fitted elsewhere and did not compile: their fit is a file that is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.base import BaseEstimator

from mulle.core.declare.candidates import FILE
from mulle.core.errors import BundleError
from mulle.core.records.base import Json
from mulle.lifecycle.training.kinds.kind import Kind, nothing_searched
from mulle.lifecycle.training.kinds.prepare import as_it_is

__all__ = ["KEPT", "Kept"]


class Kept(BaseEstimator):  # type: ignore[misc]
    """An estimator read from a skops file that Mulle wrote when the model was imported.

    Parameters
    ----------
    task : str
    file : str
    places : sequence of int
        Of its inputs among the matrix's columns.
    names : sequence of str
        Of its inputs, when it wants a frame.
    order : sequence of int
        Of the classes in alphabetical order among its own.

    Attributes
    ----------
    fitted_ : object
    classes_ : numpy.ndarray
        In alphabetical order, for classes.
    """

    def __init__(
        self,
        task: str = "regression",
        file: str = "",
        places: Sequence[int] = (),
        names: Sequence[str] = (),
        order: Sequence[int] = (),
    ) -> None:
        self.task, self.file, self.places, self.names, self.order = task, file, places, names, order

    def fit(self, X: npt.NDArray[np.float32], y: npt.NDArray[Any]) -> Kept:
        """Read the file; the rows only tell the classes."""
        from skops.io import get_untrusted_types, load

        self.n_features_in_ = X.shape[1]
        if self.task != "regression":
            self.classes_ = np.unique(y)
            if len(self.classes_) != len(self.order):
                raise BundleError(
                    f"the imported model knows {len(self.order)} classes, the rows have {len(self.classes_)}",
                    next="train on the rows that it was made for",
                )
        try:
            self.fitted_ = load(self.file, trusted=get_untrusted_types(file=self.file))
        except Exception as error:
            raise BundleError(f"the imported model does not open: {error}", next="import it again") from error
        return self

    def predict(self, X: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Answer with numbers or classes."""
        if self.task == "regression":
            return np.asarray(self.fitted_.predict(self._given(X)))
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    def predict_proba(self, X: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Give the probability of each class."""
        return np.asarray(self.fitted_.predict_proba(self._given(X))[:, list(self.order)], dtype=np.float64)

    def _given(self, X: npt.NDArray[np.float32]) -> Any:
        chosen = X[:, list(self.places)]
        if not self.names:
            return chosen
        return pl.DataFrame(chosen, schema=list(self.names)).to_pandas()


def _kept(params: Json, task: str, seed: int) -> Any:
    del seed
    return Kept(task=task, file=params.pop(FILE), **params)


KEPT = Kind(as_it_is, _kept, nothing_searched)
"""An imported estimator, run as it is."""
