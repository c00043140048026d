"""Boosted trees of libraries that Mulle does without: each is imported only when a project names it."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin

from mulle.core.declare.ranges import Floats, Ints, Range
from mulle.core.errors import DeclarationError
from mulle.core.records.base import Json
from mulle.lifecycle.training.kinds.kind import Kind
from mulle.lifecycle.training.kinds.prepare import boosted

__all__ = ["EXTRAS", "Coded"]


class Coded(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier that is told classes by number, and answers them by name.

    Attributes
    ----------
    model_ : object
        The fitted classifier.
    classes_ : numpy.ndarray
        In alphabetical order.
    """

    def __init__(self, model: Any = None) -> None:
        self.model = model

    def fit(self, X: npt.NDArray[np.float32], y: npt.NDArray[Any]) -> Coded:
        """Fit on the classes' numbers."""
        self.classes_, codes = np.unique(y, return_inverse=True)
        self.model_ = self.model.fit(X, codes)
        return self

    def predict(self, X: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Answer with classes."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    def predict_proba(self, X: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Give the probability of each class."""
        return np.asarray(self.model_.predict_proba(X), dtype=np.float64)


def _extra(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DeclarationError(f"{name} is not installed: {error}", next=f"pip install mulle[{name}]") from error


def _xgboost(params: Json, task: str, seed: int) -> Any:
    library = _extra("xgboost")
    fixed = {"n_jobs": 1, "random_state": seed, "tree_method": "hist", "verbosity": 0}
    if task == "regression":
        return library.XGBRegressor(**{**fixed, **params})
    return Coded(library.XGBClassifier(**{**fixed, **params}))


def _catboost(params: Json, task: str, seed: int) -> Any:
    library = _extra("catboost")
    fixed = {"thread_count": 1, "random_seed": seed, "verbose": False, "allow_writing_files": False}
    if task == "regression":
        return library.CatBoostRegressor(**{**fixed, **params})
    return Coded(library.CatBoostClassifier(**{**fixed, **params}))


def _xgboost_space(task: str) -> dict[str, Range]:
    del task
    return {
        "n_estimators": Ints(40, 200, 120, log=True),
        "learning_rate": Floats(0.03, 0.3, 0.1, log=True),
        "max_depth": Ints(3, 9, 6),
        "min_child_weight": Floats(0.5, 30.0, 1.0, log=True),
        "subsample": Floats(0.5, 1.0, 0.9),
        "colsample_bytree": Floats(0.5, 1.0, 0.9),
        "reg_lambda": Floats(1e-3, 10.0, 1.0, log=True),
    }


def _catboost_space(task: str) -> dict[str, Range]:
    del task
    return {
        "iterations": Ints(60, 300, 150, log=True),
        "learning_rate": Floats(0.03, 0.3, 0.1, log=True),
        "depth": Ints(4, 8, 6),
        "l2_leaf_reg": Floats(1.0, 30.0, 3.0, log=True),
    }


EXTRAS: dict[str, Kind] = {
    "xgboost": Kind(boosted, _xgboost, _xgboost_space),
    "catboost": Kind(boosted, _catboost, _catboost_space),
}
"""Kinds by name."""
