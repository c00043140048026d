"""Models of distance and density: nearest neighbours, naive Bayes, support vectors."""

from __future__ import annotations

from typing import Any

from sklearn.calibration import CalibratedClassifierCV
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import SVC, SVR

from mulle.core.declare.ranges import Choices, Floats, Ints, Range
from mulle.core.records.base import Json
from mulle.lifecycle.training.kinds.kind import Kind, only_for, scaled_target
from mulle.lifecycle.training.kinds.neighbours import Neighbours
from mulle.lifecycle.training.kinds.prepare import within

__all__ = ["KNN_ROWS", "NEAR", "SVM_ROWS"]

SVM_ROWS = 5_000
"""Rows that a support vector machine is tried on, at most: its fit takes time by their square and more."""

KNN_ROWS = 50_000
"""Rows that nearest neighbours are tried with, at most: each answer looks at all of them, and the bundle holds them."""


def _knn(params: Json, task: str, seed: int) -> Any:
    del seed
    return Neighbours(task=task, **params)


def _naive_bayes(params: Json, task: str, seed: int) -> Any:
    del seed
    only_for(("binary", "multiclass"), task, "naive_bayes", "ml.ridge()")
    return GaussianNB(**params)


def _svm(params: Json, task: str, seed: int) -> Any:
    # Noise and a small penalty would keep the solver turning for minutes.
    params = {"max_iter": 50_000, "cache_size": 400, **params}
    if task == "regression":
        return scaled_target(SVR(**params))
    # The classifier has no probabilities of its own; sigmoids fitted on three folds give them.
    return CalibratedClassifierCV(SVC(random_state=seed, **params), cv=3, method="sigmoid")


def _knn_space(task: str) -> dict[str, Range]:
    del task
    return {"n_neighbors": Ints(1, 15, 7), "weights": Choices(("distance", "uniform"), "distance")}


def _svm_space(task: str) -> dict[str, Range]:
    ranges: dict[str, Range] = {"C": Floats(1e-2, 30.0, 1.0, log=True), "gamma": Choices(("scale", "auto"), "scale")}
    return ranges if task != "regression" else {**ranges, "epsilon": Floats(1e-3, 1.0, 0.1, log=True)}


NEAR: dict[str, Kind] = {
    "knn": Kind(within, _knn, _knn_space, most_rows=KNN_ROWS),
    "naive_bayes": Kind(within, _naive_bayes, lambda _task: {"var_smoothing": Floats(1e-9, 1e-1, 1e-6, log=True)}),
    "svm": Kind(within, _svm, _svm_space, most_rows=SVM_ROWS),
}
"""Kinds by name."""
