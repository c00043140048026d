"""Trees: forests and boosting."""

from __future__ import annotations

from typing import Any

from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)

from mulle.core.declare.ranges import Choices, Floats, Ints, Range
from mulle.core.records.base import Json
from mulle.lifecycle.training.kinds.kind import Kind, Make
from mulle.lifecycle.training.kinds.prepare import boosted, filled

__all__ = ["TREES", "TREE_ROWS"]

TREE_ROWS = 20_000
"""Rows that each tree of a forest is grown on, at most: more cost time in proportion and gain little."""


def _lightgbm(params: Json, task: str, seed: int) -> Any:
    # Imported where it is used: a search of linear candidates does not wait for it.
    from lightgbm import LGBMClassifier, LGBMRegressor

    fixed = {"n_jobs": 1, "random_state": seed, "deterministic": True, "force_row_wise": True, "verbose": -1, "bagging_freq": 1}
    return (LGBMRegressor if task == "regression" else LGBMClassifier)(**{**fixed, **params})


def _hist(params: Json, task: str, seed: int) -> Any:
    # Stopping early would set rows aside at random, whatever the split says.
    fixed = {"random_state": seed, "early_stopping": False}
    model = HistGradientBoostingRegressor if task == "regression" else HistGradientBoostingClassifier
    return model(**{**fixed, **params})


def _forest(regressor: type[Any], classifier: type[Any]) -> Make:
    def make(params: Json, task: str, seed: int) -> Any:
        fixed = {"n_jobs": 1, "random_state": seed, "bootstrap": True, "max_samples": TREE_ROWS}
        return (regressor if task == "regression" else classifier)(**{**fixed, **params})

    return make


def _lightgbm_space(task: str) -> dict[str, Range]:
    ranges: dict[str, Range] = {
        "n_estimators": Ints(40, 200, 120, log=True),
        "learning_rate": Floats(0.03, 0.3, 0.1, log=True),
        "num_leaves": Ints(7, 127, 31, log=True),
        "min_child_samples": Ints(5, 200, 20, log=True),
        "subsample": Floats(0.5, 1.0, 0.9),
        "colsample_bytree": Floats(0.5, 1.0, 0.9),
        "reg_lambda": Floats(1e-3, 10.0, 1.0, log=True),
    }
    if task == "regression":
        ranges["objective"] = Choices(("regression", "regression_l1"), "regression")
    return ranges


def _hist_space(task: str) -> dict[str, Range]:
    ranges: dict[str, Range] = {
        "max_iter": Ints(40, 200, 120, log=True),
        "learning_rate": Floats(0.03, 0.3, 0.1, log=True),
        "max_leaf_nodes": Ints(7, 127, 31, log=True),
        "min_samples_leaf": Ints(5, 200, 20, log=True),
        "l2_regularization": Floats(1e-3, 10.0, 1.0, log=True),
        "max_features": Floats(0.5, 1.0, 0.9),
    }
    if task == "regression":
        ranges["loss"] = Choices(("squared_error", "absolute_error"), "squared_error")
    return ranges


def _forest_space(task: str) -> dict[str, Range]:
    del task
    return {
        "n_estimators": Ints(20, 60, 40),
        "max_leaf_nodes": Ints(32, 1024, 512, log=True),
        "min_samples_leaf": Ints(1, 20, 3, log=True),
        "max_features": Floats(0.3, 1.0, 0.7),
    }


TREES: dict[str, Kind] = {
    "lightgbm": Kind(boosted, _lightgbm, _lightgbm_space, leaf="min_child_samples"),
    "random_forest": Kind(filled, _forest(RandomForestRegressor, RandomForestClassifier), _forest_space),
    "extra_trees": Kind(filled, _forest(ExtraTreesRegressor, ExtraTreesClassifier), _forest_space),
    "hist_gradient_boosting": Kind(boosted, _hist, _hist_space, leaf="min_samples_leaf"),
}
"""Kinds by name."""
