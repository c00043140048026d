"""Fitting: refuse what cannot be trained on, then fit one set of settings on encoded rows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline

from mulle.core.clock import duration
from mulle.core.errors import DataError, MulleError, TrialError, UsageError
from mulle.core.records.bundle import FeatureSpec
from mulle.kernel.fitted import Estimator, classes_of
from mulle.kernel.metrics import class_text, metrics_for
from mulle.lifecycle.training.candidates import TREE_ROWS, build
from mulle.lifecycle.training.ensemble import Blend
from mulle.lifecycle.training.split import LEAST_ROWS

__all__ = ["fit", "latest", "refuse_metrics", "refuse_untrainable"]

_KNOWN = 0.9
"""The share of rows on which a feature must have a value to count as a copy of a number."""

_LOOK = 1000
"""Rows that are looked at first: nearly every honest feature is cleared by them."""

_GAP = -3.0e38

Matrix = npt.NDArray[np.float32]


def fit(
    settings: Mapping[str, Any],
    matrix: Matrix,
    target: npt.NDArray[np.generic],
    *,
    task: str,
    specs: Sequence[FeatureSpec],
    seed: int,
    order: npt.NDArray[np.generic] | None = None,
) -> Estimator:
    """Fit one set of settings.

    Parameters
    ----------
    settings : mapping
        ``candidate`` and ``params``, as a search's result gives them; with ``members`` an ensemble, with ``calibration``
        a correction of probabilities, with ``train_on`` a window of the past.
    matrix : numpy.ndarray of float32, shape (n, k)
        Encoded by the kernel.
    target : numpy.ndarray, shape (n,)
        Numbers, or class labels (kept as text).
    task : str
    specs : sequence of FeatureSpec, length k
    seed : int
    order : numpy.ndarray of int64, shape (n,), optional
        Times in microseconds; a window needs them.

    Returns
    -------
    Estimator
        A scikit-learn pipeline, or a `Blend` of them; its ``predict`` (and ``predict_proba``) take an encoded matrix;
        classes are text.

    Raises
    ------
    DataError
        When the rows cannot be trained on (see `refuse_untrainable`; leaks are looked for there alone), a window is asked
        for without times, or the window of an ensemble's member lacks a class.
    TrialError
        When the estimator raises.
    """
    members: Sequence[Mapping[str, Any]] = settings.get("members") or [{**settings, "weight": 1.0}]
    fitted = [_fit_member(m, matrix, target, task=task, specs=specs, seed=seed, order=order) for m in members]
    correction = settings.get("calibration")
    if len(fitted) == 1 and correction is None:
        alone: Estimator = fitted[0]
        return alone
    if len({classes_of(f, task) for f in fitted}) > 1:
        raise DataError(
            "the members of the ensemble know other classes: the window of one has no row of some class",
            next="train on a longer window, or on all rows",
        )
    return Blend(fitted, [m["weight"] for m in members], task, **(correction or {}))


def latest(order: npt.NDArray[np.generic] | None, train_on: str) -> npt.NDArray[np.bool_] | slice:
    """Give the rows that a window keeps, as something that indexes rows.

    Parameters
    ----------
    order : numpy.ndarray of int64, shape (n,), or None
        Times in microseconds.
    train_on : str
        ``all``, or a duration such as ``180d``.

    Raises
    ------
    DataError
        When a duration is asked for and there are no times.

    Examples
    --------
    >>> latest(np.array([0, 5, 9]) * 86_400_000_000, "5d").tolist()
    [False, True, True]
    """
    if train_on == "all":
        return slice(None)
    if order is None:
        raise DataError(f"train_on is {train_on} and these rows have no times", next="declare the dataset's time")
    kept: npt.NDArray[np.bool_] = order > order.max() - duration(train_on) / timedelta(microseconds=1)
    return kept


def _fit_member(
    settings: Mapping[str, Any], matrix: Matrix, target: npt.NDArray[np.generic], *, task: str, specs: Sequence[FeatureSpec],
    seed: int, order: npt.NDArray[np.generic] | None,
) -> Pipeline:  # fmt: skip
    kept = latest(order, settings.get("train_on", "all"))
    matrix, target = matrix[kept], target[kept]
    _refuse_few(matrix, target, specs)
    answers = _numbers_of(target) if task == "regression" else _classes_of(target, task)
    pipeline = build(_fitting(settings, len(matrix)), task, specs, seed)
    with warnings.catch_warnings():
        # A solver that stops early has a score to show for it; the search judges that.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        try:
            return pipeline.fit(matrix, answers)
        except (MulleError, MemoryError):
            raise
        except Exception as error:  # estimators raise whatever they meet
            said = f"{settings['candidate']} cannot be fitted on {len(matrix)} rows: {type(error).__name__}: {error}"
            raise TrialError(said[:500], next="fix other parameters, or leave the candidate out") from error


def refuse_untrainable(matrix: Matrix, target: npt.NDArray[np.generic], *, task: str, specs: Sequence[FeatureSpec]) -> None:
    """Refuse rows that no honest model comes from, before time is spent on them.

    Raises
    ------
    DataError
        Fewer than `LEAST_ROWS` rows, no feature or none with a value, two features of one name, a missing, infinite or
        constant target, one class, more than two classes in a binary task, or a feature that is the target, or a
        monotone copy of it, or another word for each class (facts name the ``column``).
    """
    _refuse_few(matrix, target, specs)
    names = [s.name for s in specs]
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise DataError(f"two features are called '{twice}'", next="give each a name of its own", column=twice)
    told = _numbers_of(target) if task == "regression" else np.unique(_classes_of(target, task), return_inverse=True)[1]
    for column, spec in enumerate(specs):
        values = matrix[:, column]
        if task == "regression" and spec.kind == "category":
            values = _read_as_numbers(values, spec.categories)
        if _tells_all(values, told, ordered=task == "regression"):
            raise DataError(
                f"the feature '{spec.name}' is the target itself, or the target in other words",
                next="leave it out of the feature function: at prediction time it is not known",
                column=spec.name,
            )


def refuse_metrics(metrics: Sequence[str], task: str) -> None:
    """Refuse metrics that do not fit the task.

    Raises
    ------
    UsageError
        Naming the first one.

    Examples
    --------
    >>> refuse_metrics(["auc"], "regression")
    Traceback (most recent call last):
    mulle.core.errors.UsageError: metric 'auc' does not fit the task regression
    """
    fitting = metrics_for(task)
    for name in metrics:
        if name not in fitting:
            raise UsageError(
                f"metric '{name}' does not fit the task {task}", next=f"choose from {', '.join(fitting)}", metric=name
            )


def _refuse_few(matrix: Matrix, target: npt.NDArray[np.generic], specs: Sequence[FeatureSpec]) -> None:
    if len(matrix) < LEAST_ROWS:
        raise DataError(f"{len(matrix)} rows are too few to train on", next=f"bring at least {LEAST_ROWS}", rows=len(matrix))
    if len(target) != len(matrix):
        raise DataError(f"{len(matrix)} rows of features and {len(target)} targets", next="give one target a row")
    if not len(specs) or bool(np.isnan(matrix).all()):
        raise DataError("every feature is null on every row", next="look at the joins and the transform with `mulle plan`")


def _numbers_of(target: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    numbers = np.asarray(target, dtype=np.float64)
    missing = int((~np.isfinite(numbers)).sum())
    if missing:
        raise DataError(f"{missing} of {len(numbers)} targets are missing or infinite", next="train on known outcomes only")
    if float(numbers.min()) == float(numbers.max()):
        raise DataError(f"the target is {numbers[0]:g} on every row", next="name a target that varies, or bring more rows")
    return numbers


def _classes_of(target: npt.NDArray[np.generic], task: str) -> npt.NDArray[np.object_]:
    text = class_text(target)
    classes = sorted(set(text.tolist()))
    if set(classes) & {"None", "nan"}:
        raise DataError("some targets are missing", next="train on known outcomes only")
    if len(classes) < 2:
        raise DataError(f"the target is '{classes[0]}' on every row: one class", next="bring rows of another class")
    if task == "binary" and len(classes) > 2:
        raise DataError(
            f"the target of a binary task has {len(classes)} classes: {', '.join(classes[:5])}", next='declare task="multiclass"'
        )
    return text


def _read_as_numbers(codes: npt.NDArray[np.float32], categories: Sequence[str]) -> npt.NDArray[np.float32]:
    """Give the numbers that codes stand for, where their texts are numbers; else nothing but gaps."""
    try:
        numbers = np.array([*map(float, categories), np.nan], dtype=np.float32)
    except ValueError:
        return np.full(len(codes), np.nan, dtype=np.float32)
    at = np.where(np.isnan(codes) | (codes < 0), len(categories), codes).astype(np.int64)
    read: npt.NDArray[np.float32] = numbers[at]
    return read


def _tells_all(column: npt.NDArray[np.float32], target: npt.NDArray[np.generic], *, ordered: bool) -> bool:
    """Tell whether each value stands for one target and each target for one value (for numbers: in the same order)."""
    few = slice(None, None, max(1, len(column) // _LOOK))
    if ordered:
        return _same_order(column[few], target[few]) and _same_order(column, target)
    return _same_groups(column[few], target[few]) and _same_groups(column, target)


def _same_order(column: npt.NDArray[np.float32], target: npt.NDArray[np.generic]) -> bool:
    known = ~np.isnan(column)
    if known.mean() < _KNOWN:
        return False
    # Rounding to float32 may merge neighbours of either, so the counts of distinct values may differ a little.
    said, told = column[known], target[known].astype(np.float32)
    here, there = len(np.unique(said)), len(np.unique(told))
    if here < 2 or not 0.9 * there <= here <= there / 0.9:
        return False
    return any(bool((np.diff(side[np.lexsort((side, said))]) >= 0).all()) for side in (told, -told))


def _same_groups(column: npt.NDArray[np.float32], target: npt.NDArray[np.generic]) -> bool:
    said = np.where(np.isnan(column), np.float32(_GAP), column)  # a gap says something of a class, as any other value does
    at = np.lexsort((target, said))
    stepped, moved = np.diff(said[at]) != 0, np.diff(target[at]) != 0
    return np.array_equal(stepped, moved) and len(np.unique(target)) == 1 + int(stepped.sum())


def _fitting(settings: Mapping[str, Any], rows: int) -> dict[str, Any]:
    params = dict(settings.get("params", {}))
    if settings["candidate"] in ("random_forest", "extra_trees"):
        most = params.get("max_samples", TREE_ROWS)
        params["max_samples"] = min(most, rows) if isinstance(most, int) else most
    return {"candidate": settings["candidate"], "params": params}
