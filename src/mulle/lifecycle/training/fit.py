"""Fitting: refuse what cannot be trained on, then fit one set of settings on encoded rows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline

from mulle.core.errors import DataError
from mulle.core.records.bundle import FeatureSpec
from mulle.kernel.metrics import class_text
from mulle.lifecycle.training.candidates import TREE_ROWS, build
from mulle.lifecycle.training.split import LEAST_ROWS

__all__ = ["fit", "refuse_untrainable"]

Matrix = npt.NDArray[np.float32]


def fit(
    settings: Mapping[str, Any],
    matrix: Matrix,
    target: npt.NDArray[np.generic],
    *,
    task: str,
    specs: Sequence[FeatureSpec],
    seed: int,
) -> Pipeline:
    """Fit one set of settings.

    Parameters
    ----------
    settings : mapping
        ``candidate`` and ``params``, as a search's result gives them.
    matrix : numpy.ndarray of float32, shape (n, k)
        Encoded by the kernel.
    target : numpy.ndarray, shape (n,)
        Numbers, or class labels (kept as text).
    task : str
    specs : sequence of FeatureSpec, length k
    seed : int

    Returns
    -------
    sklearn.pipeline.Pipeline
        Its ``predict`` (and ``predict_proba``) take an encoded matrix; classes are text.

    Raises
    ------
    DataError
        When the rows cannot be trained on (see `refuse_untrainable`).
    """
    refuse_untrainable(matrix, target, task=task, specs=specs)
    pipeline = build(_fitting(settings, len(matrix)), task, specs, seed)
    answers = np.asarray(target, dtype=np.float64) if task == "regression" else class_text(target)
    with warnings.catch_warnings():
        # A solver that stops early has a score to show for it; the search judges that.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        return pipeline.fit(matrix, answers)


def refuse_untrainable(matrix: Matrix, target: npt.NDArray[np.generic], *, task: str, specs: Sequence[FeatureSpec]) -> None:
    """Refuse rows that no honest model comes from, before time is spent on them.

    Raises
    ------
    DataError
        Fewer than `LEAST_ROWS` rows, no feature or none with a value, a missing or constant target, one class, more
        than two classes in a binary task, or the target among the features (facts name the ``column``).
    """
    if len(matrix) < LEAST_ROWS:
        raise DataError(f"{len(matrix)} rows are too few to train on", next=f"bring at least {LEAST_ROWS}", rows=len(matrix))
    if len(target) != len(matrix):
        raise DataError(f"{len(matrix)} rows of features and {len(target)} targets", next="give one target a row")
    if not len(specs) or bool(np.isnan(matrix).all()):
        raise DataError("every feature is null on every row", next="look at the joins and the transform with `mulle plan`")
    if task == "regression":
        _refuse_numbers(matrix, np.asarray(target, dtype=np.float64), specs)
    else:
        _refuse_classes(matrix, class_text(target), task, specs)


def _refuse_numbers(matrix: Matrix, target: npt.NDArray[np.float64], specs: Sequence[FeatureSpec]) -> None:
    missing = int((~np.isfinite(target)).sum())
    if missing:
        raise DataError(f"{missing} of {len(target)} targets are missing or infinite", next="train on known outcomes only")
    if float(target.min()) == float(target.max()):
        raise DataError(f"the target is {target[0]:g} on every row", next="name a target that varies, or bring more rows")
    narrow = target.astype(np.float32)
    for column, spec in enumerate(specs):
        if spec.kind == "number" and np.array_equal(matrix[:, column], narrow):
            raise _leak(spec.name)


def _refuse_classes(matrix: Matrix, target: npt.NDArray[np.object_], task: str, specs: Sequence[FeatureSpec]) -> None:
    classes = sorted(set(target.tolist()))
    if set(classes) & {"None", "nan"}:
        raise DataError("some targets are missing", next="train on known outcomes only")
    if len(classes) < 2:
        raise DataError(f"the target is '{classes[0]}' on every row: one class", next="bring rows of another class")
    if task == "binary" and len(classes) > 2:
        raise DataError(
            f"the target of a binary task has {len(classes)} classes: {', '.join(classes[:5])}", next='declare task="multiclass"'
        )
    for column, spec in enumerate(specs):
        if _says_the_class(matrix[:, column], target, classes, spec):
            raise _leak(spec.name)


def _says_the_class(
    column: npt.NDArray[np.float32], target: npt.NDArray[np.object_], classes: Sequence[str], spec: FeatureSpec
) -> bool:
    if np.isnan(column).any():
        return False
    if spec.kind == "category":
        if set(spec.categories) != set(classes) or (column < 0).any():
            return False
        said = np.array(spec.categories, dtype=object)[column.astype(np.int64)]
        return bool(np.array_equal(said, target))
    if set(np.unique(column[:1000]).tolist()) - {float(c) for c in _numeric(classes)}:
        return False
    numbers = dict(zip(classes, _numeric(classes), strict=True))
    return bool(np.array_equal(column, np.array([numbers[t] for t in target])))


def _numeric(classes: Sequence[str]) -> list[float]:
    words = {"false": 0.0, "true": 1.0}
    try:
        return [words[c] if c in words else float(c) for c in classes]
    except ValueError:
        return [float("nan")] * len(classes)


def _fitting(settings: Mapping[str, Any], rows: int) -> dict[str, Any]:
    params = dict(settings.get("params", {}))
    if settings["candidate"] in ("random_forest", "extra_trees"):
        most = params.get("max_samples", TREE_ROWS)
        params["max_samples"] = min(most, rows) if isinstance(most, int) else most
    return {"candidate": settings["candidate"], "params": params}


def _leak(column: str) -> DataError:
    return DataError(
        f"the feature '{column}' is the target itself",
        next="leave it out of the feature function: at prediction time it is not known",
        column=column,
    )
