"""Linear models and the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import ElasticNet, Lasso, LinearRegression, LogisticRegression, Ridge, RidgeClassifier

from mulle.core.declare.ranges import Floats
from mulle.core.records.base import Json
from mulle.core.records.bundle import FeatureSpec
from mulle.lifecycle.training.kinds.kind import Kind, nothing_searched, only_for, scaled_target
from mulle.lifecycle.training.kinds.prepare import as_it_is, scaled, within

__all__ = ["LINEAR"]


def _dummy(params: Json, task: str, seed: int) -> Any:
    if task == "regression":
        return DummyRegressor(**{"strategy": "median", **params})
    return DummyClassifier(**{"strategy": "prior", "random_state": seed, **params})


def _linear(params: Json, task: str, seed: int) -> Any:
    del seed
    only_for(("regression",), task, "linear", "ml.logistic()")
    return LinearRegression(**params)


def _ridge_matrix(specs: Sequence[FeatureSpec], task: str, codes: str) -> list[tuple[str, Any]]:
    # Far outside, the sigmoids of all classes are 0, and what then is their share is anybody's guess.
    return (scaled if task == "regression" else within)(specs, task, codes)


def _ridge(params: Json, task: str, seed: int) -> Any:
    if task == "regression":
        return Ridge(**params)
    # The classifier has no probabilities of its own; sigmoids fitted on three folds give them.
    return CalibratedClassifierCV(RidgeClassifier(random_state=seed, **params), cv=3, method="sigmoid")


def _lasso(params: Json, task: str, seed: int) -> Any:
    only_for(("regression",), task, "lasso", 'ml.logistic(l1_ratio=1.0, solver="saga")')
    return scaled_target(Lasso(**{"random_state": seed, **params}))


def _elastic_net(params: Json, task: str, seed: int) -> Any:
    only_for(("regression",), task, "elastic_net", 'ml.logistic(l1_ratio=0.5, solver="saga")')
    return scaled_target(ElasticNet(**{"random_state": seed, **params}))


def _logistic(params: Json, task: str, seed: int) -> Any:
    only_for(("binary", "multiclass"), task, "logistic", "ml.ridge()")
    return LogisticRegression(**{"max_iter": 300, "random_state": seed, **params})


_ALPHA = Floats(1e-4, 1e2, 1e-2, log=True)

LINEAR: dict[str, Kind] = {
    "dummy": Kind(as_it_is, _dummy, nothing_searched),
    "linear": Kind(scaled, _linear, nothing_searched),
    "ridge": Kind(_ridge_matrix, _ridge, lambda _task: {"alpha": Floats(1e-3, 1e3, 1.0, log=True)}),
    "lasso": Kind(scaled, _lasso, lambda _task: {"alpha": _ALPHA}),
    "elastic_net": Kind(scaled, _elastic_net, lambda _task: {"alpha": _ALPHA, "l1_ratio": Floats(0.05, 0.95, 0.5)}),
    "logistic": Kind(scaled, _logistic, lambda _task: {"C": Floats(1e-3, 1e2, 1.0, log=True)}),
}
"""Kinds by name."""
