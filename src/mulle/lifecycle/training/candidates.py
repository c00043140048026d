"""Candidates: what each kind of estimator searches over, and how it is built. To add one, add a row to `_KINDS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mulle.core.declare.candidates import Candidate
from mulle.core.errors import DeclarationError
from mulle.core.records.base import Json
from mulle.core.records.bundle import FeatureSpec

__all__ = ["TREE_ROWS", "SampledTrial", "build", "defaults", "space"]

_LINEAR, _FOREST, _PLAIN = "linear", "forest", "plain"

TREE_ROWS = 20_000
"""Rows that each tree of a forest is grown on, at most: more cost time in proportion and gain little."""


class SampledTrial(Protocol):
    """The part of an Optuna trial that a space needs."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Suggest a number."""
        ...

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Suggest a whole number."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Suggest one of several."""
        ...


@dataclass(frozen=True, slots=True)
class _Float:
    low: float
    high: float
    start: float
    log: bool = False


@dataclass(frozen=True, slots=True)
class _Int:
    low: int
    high: int
    start: int
    log: bool = False


@dataclass(frozen=True, slots=True)
class _Choice:
    choices: tuple[Any, ...]
    start: Any


_Range = _Float | _Int | _Choice
_Make = Callable[[Json, str, int], Any]


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of estimator: how its input is prepared, how it is made, what is searched (by task)."""

    prepare: str
    make: _Make
    space: Callable[[str], dict[str, _Range]]


def space(candidate: Candidate, trial: SampledTrial, task: str, rows: int) -> Json:
    """Suggest parameters for a candidate; what the user fixed is taken as it is.

    Parameters
    ----------
    candidate : Candidate
    trial : Optuna trial
        Parameters are named ``kind.parameter``.
    task : str
    rows : int
        Rows of the training set; bounds the size of trees' leaves.

    Returns
    -------
    dict
        Parameters by the estimator's own names.
    """
    chosen: Json = {}
    for name, over in _ranges(candidate, task, rows).items():
        key = f"{candidate.kind}.{name}"
        if isinstance(over, _Float):
            chosen[name] = trial.suggest_float(key, over.low, over.high, log=over.log)
        elif isinstance(over, _Int):
            chosen[name] = trial.suggest_int(key, over.low, over.high, log=over.log)
        else:
            chosen[name] = trial.suggest_categorical(key, over.choices)
    return {**chosen, **candidate.params}


def defaults(candidate: Candidate, task: str, rows: int) -> Json:
    """Give the parameters that a candidate is tried with first, the user's own among them."""
    return {**{name: over.start for name, over in _ranges(candidate, task, rows).items()}, **candidate.params}


def build(settings: Mapping[str, Any], task: str, specs: Sequence[FeatureSpec], seed: int) -> Pipeline:
    """Build an unfitted pipeline from an encoded float32 matrix to answers; every one is fit for compiling.

    Parameters
    ----------
    settings : mapping
        ``candidate`` (kind) and ``params``.
    task : str
    specs : sequence of FeatureSpec, length k
        The matrix's columns. Linear models get numbers imputed and scaled and categories one-hot; trees get the codes
        as they are; forests, which take no gap once compiled, get gaps filled.
    seed : int

    Raises
    ------
    DeclarationError
        On an unknown kind or parameter.
    """
    kind = _kind(str(settings["candidate"]))
    try:
        model = kind.make(dict(settings.get("params", {})), task, seed)
    except TypeError as error:
        raise DeclarationError(f"candidate {settings['candidate']}: {error}", next="use the estimator's own names") from error
    prepare = {_LINEAR: _prepare_linear, _FOREST: _prepare_forest, _PLAIN: _prepare_nothing}[kind.prepare](specs)
    return Pipeline([*prepare, ("model", model)])


def _kind(name: str) -> _Kind:
    if name not in _KINDS:
        raise DeclarationError(f"no candidate of the kind '{name}'", next=f"choose from {', '.join(_KINDS)}")
    return _KINDS[name]


def _ranges(candidate: Candidate, task: str, rows: int) -> dict[str, _Range]:
    ranges = _kind(candidate.kind).space(task)
    if "min_child_samples" in ranges:
        # A leaf of more than a tenth of the rows would leave a small table without a tree.
        most = max(2, min(200, rows // 10))
        ranges["min_child_samples"] = _Int(min(5, most), most, min(20, most), log=True)
    return {name: over for name, over in ranges.items() if name not in candidate.params}


def _prepare_nothing(specs: Sequence[FeatureSpec]) -> list[tuple[str, Any]]:
    del specs
    return []


def _prepare_linear(specs: Sequence[FeatureSpec]) -> list[tuple[str, Any]]:
    numbers, categories = _columns(specs)
    parts: list[tuple[str, Any, list[int]]] = []
    if numbers:
        scaled = Pipeline([("fill", SimpleImputer(strategy="median", keep_empty_features=True)), ("scale", StandardScaler())])
        parts.append(("numbers", scaled, numbers))
    if categories:
        fill = SimpleImputer(strategy="constant", fill_value=-2.0, keep_empty_features=True)
        hot = OneHotEncoder(handle_unknown="ignore", dtype=np.float32)
        parts.append(("categories", Pipeline([("fill", fill), ("hot", hot)]), categories))
    return [("prepare", ColumnTransformer(parts))]


def _prepare_forest(specs: Sequence[FeatureSpec]) -> list[tuple[str, Any]]:
    numbers, categories = _columns(specs)
    parts: list[tuple[str, Any, list[int]]] = []
    if numbers:
        parts.append(("numbers", SimpleImputer(strategy="median", keep_empty_features=True), numbers))
    if categories:
        parts.append(("categories", SimpleImputer(strategy="constant", fill_value=-2.0, keep_empty_features=True), categories))
    return [("prepare", ColumnTransformer(parts))]


def _columns(specs: Sequence[FeatureSpec]) -> tuple[list[int], list[int]]:
    return [i for i, s in enumerate(specs) if s.kind == "number"], [i for i, s in enumerate(specs) if s.kind == "category"]


def _make_lightgbm(params: Json, task: str, seed: int) -> Any:
    # Imported where it is used: a search of linear candidates does not wait for it.
    from lightgbm import LGBMClassifier, LGBMRegressor

    fixed = {"n_jobs": 1, "random_state": seed, "deterministic": True, "force_row_wise": True, "verbose": -1, "bagging_freq": 1}
    return (LGBMRegressor if task == "regression" else LGBMClassifier)(**{**fixed, **params})


def _make_ridge(params: Json, task: str, seed: int) -> Any:
    if task == "regression":
        return Ridge(**params)
    # The classifier has no probabilities of its own; sigmoids fitted on three folds give them.
    return CalibratedClassifierCV(RidgeClassifier(random_state=seed, **params), cv=3, method="sigmoid")


def _make_logistic(params: Json, task: str, seed: int) -> Any:
    if task == "regression":
        raise DeclarationError("logistic is no candidate for regression", next="use ml.ridge()")
    return LogisticRegression(**{"max_iter": 300, "random_state": seed, **params})


def _make_forest(regressor: type[Any], classifier: type[Any]) -> _Make:
    def make(params: Json, task: str, seed: int) -> Any:
        fixed = {"n_jobs": 1, "random_state": seed, "bootstrap": True, "max_samples": TREE_ROWS}
        return (regressor if task == "regression" else classifier)(**{**fixed, **params})

    return make


def _make_dummy(params: Json, task: str, seed: int) -> Any:
    if task == "regression":
        return DummyRegressor(**{"strategy": "median", **params})
    return DummyClassifier(**{"strategy": "prior", "random_state": seed, **params})


def _lightgbm_space(task: str) -> dict[str, _Range]:
    ranges: dict[str, _Range] = {
        "n_estimators": _Int(40, 200, 120, log=True),
        "learning_rate": _Float(0.03, 0.3, 0.1, log=True),
        "num_leaves": _Int(7, 127, 31, log=True),
        "min_child_samples": _Int(5, 200, 20, log=True),
        "subsample": _Float(0.5, 1.0, 0.9),
        "colsample_bytree": _Float(0.5, 1.0, 0.9),
        "reg_lambda": _Float(1e-3, 10.0, 1.0, log=True),
    }
    if task == "regression":
        ranges["objective"] = _Choice(("regression", "regression_l1"), "regression")
    return ranges


def _forest_space(task: str) -> dict[str, _Range]:
    del task
    return {
        "n_estimators": _Int(20, 60, 40),
        "max_leaf_nodes": _Int(32, 1024, 512, log=True),
        "min_samples_leaf": _Int(1, 20, 3, log=True),
        "max_features": _Float(0.3, 1.0, 0.7),
    }


_KINDS: dict[str, _Kind] = {
    "dummy": _Kind(_PLAIN, _make_dummy, lambda _task: {}),
    "ridge": _Kind(_LINEAR, _make_ridge, lambda _task: {"alpha": _Float(1e-3, 1e3, 1.0, log=True)}),
    "logistic": _Kind(_LINEAR, _make_logistic, lambda _task: {"C": _Float(1e-3, 1e2, 1.0, log=True)}),
    "lightgbm": _Kind(_PLAIN, _make_lightgbm, _lightgbm_space),
    "random_forest": _Kind(_FOREST, _make_forest(RandomForestRegressor, RandomForestClassifier), _forest_space),
    "extra_trees": _Kind(_FOREST, _make_forest(ExtraTreesRegressor, ExtraTreesClassifier), _forest_space),
}
