"""Estimators that were fitted elsewhere: opened in the form they were left in, and asked what they answer.

What a form may do when it is opened decides who may open it. A LightGBM or XGBoost text and a skops file of known types are
data. A pickle is a program: it is opened only where a person said that this one may run.
"""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mulle.core.errors import BundleError, DeclarationError, Refused

__all__ = ["FORMS", "PICKLED", "answers_of", "classes_told", "inner_estimators", "input_names", "open_foreign"]

PICKLED = "pickle"

FORMS = ("skops", "lightgbm", "xgboost", PICKLED)
"""The forms an estimator may be left in."""

_VOUCH = "say --trust if you know who made it"

_KNOWN = (
    *("lightgbm.sklearn.LGBMClassifier", "lightgbm.sklearn.LGBMRegressor", "lightgbm.basic.Booster"),
    "collections.OrderedDict",
)
"""Types that skops does not know for itself, and that do nothing but hold what was fitted."""


def open_foreign(path: Path, form: str, kind: str, *, trusted: bool) -> Any:
    """Open an estimator.

    Parameters
    ----------
    path : Path
    form : str
        One of `FORMS`.
    kind : str
        The class that XGBoost's file is read into, ``xgboost.sklearn.XGBRegressor``.
    trusted : bool
        Whether a person said that what is in the file may run.

    Raises
    ------
    Refused
        When a pickle is not trusted, or a skops file asks for types that nobody knows.
    BundleError
        When it does not open.
    DeclarationError
        When the library it needs is not installed.
    """
    if form == PICKLED and not trusted:
        raise Refused(f"{path.name} is a pickle, which may run anything when it is opened", next=_VOUCH)
    try:
        if form == "lightgbm":
            return _library("lightgbm").Booster(model_file=str(path))
        if form == "xgboost":
            return _xgboost(path, kind)
        if form == "skops":
            return _skops(path, trusted)
        with path.open("rb") as file:
            return pickle.load(file)
    except (Refused, DeclarationError):
        raise
    except Exception as error:  # a file may hold anything
        raise BundleError(
            f"the model in {path.name} does not open: {type(error).__name__}: {str(error)[:300]}",
            next="install the versions that it was logged with (requirements.txt beside it), or log it again",
        ) from error


def _skops(path: Path, trusted: bool) -> Any:
    from skops.io import get_untrusted_types, load

    asked = get_untrusted_types(file=path)
    strange = [name for name in asked if name not in _KNOWN]
    if strange and not trusted:
        raise Refused(
            f"{path.name} asks for {', '.join(strange[:5])}, which may run anything when it is opened",
            next=_VOUCH,
        )
    return load(path, trusted=asked)


def _xgboost(path: Path, kind: str) -> Any:
    library = _library("xgboost")
    made = getattr(library, kind.rpartition(".")[2], library.Booster)()
    made.load_model(str(path))
    return made


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DeclarationError(f"{name} is not installed: {error}", next=f"pip install mulle[{name}]") from error


def inner_estimators(model: Any) -> list[Any]:
    """Find what a model of another kind may be a shell of: estimators among its own attributes."""
    held = vars(model).values() if hasattr(model, "__dict__") else ()
    return [value for value in held if callable(getattr(value, "predict", None))]


def input_names(model: Any, told: Sequence[str]) -> list[str]:
    """Name an estimator's inputs in their order: by its signature, else by what it was fitted on; empty when nobody knows."""
    own = getattr(model, "feature_names_in_", None)
    if own is None and callable(getattr(model, "feature_name", None)):
        own = model.feature_name()
    if own is None:
        own = getattr(model, "feature_names", None)
    named = [str(name) for name in own] if own is not None else []
    return named if named and (not told or set(named) == set(told)) else list(told)


def classes_told(model: Any, task: str, width: int) -> list[str]:
    """Name a classifier's classes as a target's text would, in the order of its probabilities."""
    if task == "regression":
        return []
    known = getattr(model, "classes_", None)
    values = range(width) if known is None else np.asarray(known).tolist()
    return [str(v).lower() if isinstance(v, bool) else str(v) for v in values]


def answers_of(model: Any, rows: pl.DataFrame, task: str) -> npt.NDArray[np.float64]:
    """Ask an estimator for the answers to rows of numbers.

    Parameters
    ----------
    model : object
        Of scikit-learn's manners, or a booster of LightGBM or XGBoost.
    rows : polars.DataFrame, shape (n, k)
        Its inputs in its order.
    task : str

    Returns
    -------
    numpy.ndarray of float64, shape (n, 1) for regression, (n, classes) else
    """
    library = type(model).__module__.partition(".")[0]
    given: Any = rows.to_pandas() if hasattr(model, "feature_names_in_") else rows.to_numpy()
    if type(model).__name__ == "Booster" and library == "xgboost":
        given = _library("xgboost").DMatrix(rows.to_numpy(), feature_names=model.feature_names)
    if task == "regression" or type(model).__name__ == "Booster":
        said = np.asarray(model.predict(given), dtype=np.float64)
        if task != "regression" and said.ndim == 1:
            return np.column_stack([1 - said, said])
        return said.reshape(len(rows), -1)
    return np.asarray(model.predict_proba(given), dtype=np.float64)
