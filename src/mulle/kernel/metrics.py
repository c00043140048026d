"""Metrics of answers against truths: the search, the gates, the windows and the canary all measure with these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mulle.core.errors import UsageError

__all__ = ["METRICS", "Answers", "class_text", "losses", "lower_is_better", "measure", "metrics_for"]

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]

# The clip that scikit-learn uses for float64 probabilities would punish one float32 zero with a loss of 36;
# float32's own epsilon bounds it at 16 on every path, compiled or not.
_EPSILON = float(np.finfo(np.float32).eps)


@dataclass(frozen=True, slots=True)
class Answers:
    """Truths beside answers, ready to be measured.

    Attributes
    ----------
    truth, values : numpy.ndarray, shape (n,)
        float64 for regression, class text for classes.
    probabilities : numpy.ndarray of float64, shape (n, classes), or None
    classes : tuple of str
        The columns of `probabilities`; of two, the second is the positive one.
    """

    truth: Array
    values: Array
    probabilities: Floats | None
    classes: tuple[str, ...]


def _numbers(answers: Answers) -> tuple[Floats, Floats]:
    return np.asarray(answers.truth, dtype=np.float64), np.asarray(answers.values, dtype=np.float64)


def _mae(a: Answers) -> float:
    truth, values = _numbers(a)
    return float(np.mean(np.abs(truth - values)))


def _rmse(a: Answers) -> float:
    truth, values = _numbers(a)
    return float(np.sqrt(np.mean((truth - values) ** 2)))


def _r2(a: Answers) -> float:
    truth, values = _numbers(a)
    total = float(np.sum((truth - truth.mean()) ** 2))
    return 1.0 - float(np.sum((truth - values) ** 2)) / total if total > 0 else 0.0


def _mape(a: Answers) -> float:
    truth, values = _numbers(a)
    return float(np.mean(np.abs(truth - values) / np.maximum(np.abs(truth), np.finfo(np.float64).eps)))


def _accuracy(a: Answers) -> float:
    return float(np.mean(a.truth == a.values))


def _log_loss(a: Answers) -> float:
    return float(np.mean(_row_log_loss(a)))


def _brier(a: Answers) -> float:
    probabilities = _needed(a)
    hot = _one_hot(a.truth, a.classes)
    missed = 1.0 - hot.sum(axis=1)  # a truth that the model has no column for is answered with probability 0
    total = np.mean(np.sum((probabilities - hot) ** 2, axis=1) + missed)
    return float(total / 2 if len(a.classes) == 2 else total)


def _auc(a: Answers) -> float:
    probabilities, hot = _needed(a), _one_hot(a.truth, a.classes)
    columns = [1] if len(a.classes) == 2 else list(range(len(a.classes)))
    areas = [_area(hot[:, c] == 1, probabilities[:, c]) for c in columns]
    known = [area for area in areas if area is not None]
    return float(np.mean(known)) if known else 0.5


def _f1(a: Answers) -> float:
    wanted = a.classes[1:] if len(a.classes) == 2 else a.classes
    return float(np.mean([_f1_of(a.truth == c, a.values == c) for c in wanted]))


def _f1_of(truth: npt.NDArray[np.bool_], found: npt.NDArray[np.bool_]) -> float:
    both, either = int(np.sum(truth & found)), int(np.sum(truth)) + int(np.sum(found))
    return 2 * both / either if either else 0.0


def _area(positive: npt.NDArray[np.bool_], score: Floats) -> float | None:
    # Mann-Whitney U with mean ranks for ties.
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return None
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def _one_hot(truth: Array, classes: Sequence[str]) -> Floats:
    return np.stack([truth == c for c in classes], axis=1).astype(np.float64)


def _needed(a: Answers) -> Floats:
    if a.probabilities is None:
        raise UsageError("this metric needs probabilities, and there are none", next="choose accuracy or f1")
    return np.asarray(a.probabilities, dtype=np.float64)


def _row_log_loss(a: Answers) -> Floats:
    probabilities = np.clip(_needed(a), _EPSILON, 1.0)
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    hot = _one_hot(a.truth, a.classes)
    chance = np.sum(probabilities * hot, axis=1)
    return np.asarray(-np.log(np.maximum(chance, _EPSILON)), dtype=np.float64)


METRICS: dict[str, Callable[[Answers], float]] = {
    "mae": _mae,
    "rmse": _rmse,
    "r2": _r2,
    "mape": _mape,
    "log_loss": _log_loss,
    "accuracy": _accuracy,
    "auc": _auc,
    "f1": _f1,
    "brier": _brier,
}
"""Every metric by name. auc is one against the rest and f1 is averaged over classes when there are more than two."""

_REGRESSION = ("mae", "rmse", "r2", "mape")
_CLASSES = ("log_loss", "accuracy", "auc", "f1", "brier")
_HIGHER = {"r2", "accuracy", "auc", "f1"}


def metrics_for(task: str) -> tuple[str, ...]:
    """Name the metrics that fit a task.

    Examples
    --------
    >>> metrics_for("regression")
    ('mae', 'rmse', 'r2', 'mape')
    """
    return _REGRESSION if task == "regression" else _CLASSES


def lower_is_better(name: str) -> bool:
    """Tell a metric's direction.

    Raises
    ------
    UsageError
        When there is no such metric.

    Examples
    --------
    >>> lower_is_better("mae"), lower_is_better("auc")
    (True, False)
    """
    if name not in METRICS:
        raise UsageError(f"no metric '{name}'", next=f"choose from {', '.join(METRICS)}", metric=name)
    return name not in _HIGHER


def measure(
    names: Iterable[str],
    task: str,
    truth: Array,
    values: Array,
    probabilities: Floats | None = None,
    classes: Sequence[str] = (),
) -> dict[str, float]:
    """Measure answers by several metrics.

    Parameters
    ----------
    names : iterable of str
        Of `METRICS`, fitting the task.
    task : str
    truth, values : numpy.ndarray, shape (n,)
        Numbers for regression; anything that `class_text` reads for classes.
    probabilities : numpy.ndarray, shape (n, classes), optional
    classes : sequence of str
        The columns of `probabilities`.

    Returns
    -------
    dict
        By name, in the order asked for.

    Raises
    ------
    UsageError
        On an unknown metric, one of another task, no rows, or missing probabilities.

    Examples
    --------
    >>> measure(["mae"], "regression", np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    {'mae': 1.0}
    """
    answers = _answers(task, truth, values, probabilities, classes)
    fitting = metrics_for(task)
    result = {}
    for name in names:
        if name not in fitting:
            raise UsageError(
                f"metric '{name}' does not fit the task {task}", next=f"choose from {', '.join(fitting)}", metric=name
            )
        result[name] = METRICS[name](answers)
    return result


def losses(
    task: str, truth: Array, values: Array, probabilities: Floats | None = None, classes: Sequence[str] = ()
) -> npt.NDArray[np.float64]:
    """Give each row's loss: absolute error, or log loss for classes (0 or 1 where there are no probabilities).

    Parameters
    ----------
    task, truth, values, probabilities, classes
        As for `measure`.

    Returns
    -------
    numpy.ndarray of float64, shape (n,)

    Examples
    --------
    >>> losses("regression", np.array([1.0, 2.0]), np.array([1.0, 4.0])).tolist()
    [0.0, 2.0]
    """
    if len(truth) == 0:
        return np.zeros(0)
    answers = _answers(task, truth, values, probabilities, classes)
    if task == "regression":
        numbers, found = _numbers(answers)
        distance: Floats = np.abs(numbers - found)
        return distance
    if probabilities is None:
        return np.asarray(answers.truth != answers.values, dtype=np.float64)
    return _row_log_loss(answers)


def class_text(labels: npt.ArrayLike) -> npt.NDArray[np.object_]:
    """Write class labels as text, the same whether they came from a frame, from JSON or from a model.

    Parameters
    ----------
    labels : array_like, shape (n,)
        Booleans become ``true`` and ``false``, whole numbers lose their ``.0``.

    Returns
    -------
    numpy.ndarray of object (str), shape (n,)

    Examples
    --------
    >>> class_text([True, 1.0, 2, "yes"]).tolist()
    ['true', '1', '2', 'yes']
    """
    given: list[object] = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)  # type: ignore[arg-type]
    written = np.empty(len(given), dtype=object)
    written[:] = [_text(v) for v in given]
    return written


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _answers(task: str, truth: Array, values: Array, probabilities: Floats | None, classes: Sequence[str]) -> Answers:
    if len(truth) == 0 or len(truth) != len(values):
        raise UsageError(
            f"{len(truth)} truths and {len(values)} answers cannot be measured", next="give as many of each, at least one"
        )
    if task == "regression":
        return Answers(truth, values, None, ())
    return Answers(class_text(truth), class_text(values), probabilities, tuple(classes))
