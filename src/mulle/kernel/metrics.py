"""Metrics of answers against truths: the search, the gates, the windows and the canary all measure with these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from mulle.core.errors import UsageError
from mulle.kernel.answered import Answers, answered, class_text, row_log_loss
from mulle.kernel.ranks import area, average_precision, weighted_median

__all__ = ["METRICS", "class_text", "losses", "lower_is_better", "measure", "measure_weighted", "metrics_for"]

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]

ECE_BINS = 10

# A metric takes weights of shape (r, n), a row of them for each time the rows are drawn anew, and gives r values:
# what is reported and what the bootstrap draws are one definition.
Weighted = Callable[[Answers, Floats], Floats]


def _mean(rows: Floats, weights: Floats) -> Floats:
    found: Floats = weights @ rows / weights.sum(axis=1)
    return found


def _share(part: Floats, whole: Floats) -> Floats:
    found: Floats = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return found


def _average(by_class: Floats) -> Floats:
    found: Floats = by_class.mean(axis=1)
    return found


def _error(a: Answers) -> Floats:
    return np.asarray(a.values, dtype=np.float64) - np.asarray(a.truth, dtype=np.float64)


def _mae(a: Answers, w: Floats) -> Floats:
    return _mean(np.abs(_error(a)), w)


def _rmse(a: Answers, w: Floats) -> Floats:
    return np.sqrt(_mean(_error(a) ** 2, w))


def _r2(a: Answers, w: Floats) -> Floats:
    truth = np.asarray(a.truth, dtype=np.float64)
    centred = truth - truth.mean()
    spread = _mean(centred**2, w) - _mean(centred, w) ** 2
    left = _mean(_error(a) ** 2, w)
    constant = spread <= 1e-15 * float(np.mean(centred**2))
    return np.where(constant, 0.0, 1.0 - left / np.where(constant, 1.0, spread))


def _mape(a: Answers, w: Floats) -> Floats:
    truth = np.asarray(a.truth, dtype=np.float64)
    return _mean(np.abs(_error(a)) / np.maximum(np.abs(truth), np.finfo(np.float64).eps), w)


def _smape(a: Answers, w: Floats) -> Floats:
    size = np.abs(np.asarray(a.truth, dtype=np.float64)) + np.abs(np.asarray(a.values, dtype=np.float64))
    distance = 2 * np.abs(_error(a))
    return _mean(np.divide(distance, size, out=np.zeros_like(distance), where=size != 0), w)


def _medae(a: Answers, w: Floats) -> Floats:
    return weighted_median(np.abs(_error(a)), w)


def _accuracy(a: Answers, w: Floats) -> Floats:
    return _mean((a.truth_codes == a.value_codes).astype(np.float64), w)


def _log_loss(a: Answers, w: Floats) -> Floats:
    return _mean(row_log_loss(a), w)


def _brier(a: Answers, w: Floats) -> Floats:
    probabilities = a.needed_probabilities()
    hot = _hot(a.truth_codes, len(a.classes))
    missed = 1.0 - hot.sum(axis=1)  # a truth that the model has no column for is answered with probability 0
    total = np.sum((probabilities - hot) ** 2, axis=1) + missed
    return _mean(total / 2 if len(a.classes) == 2 else total, w)


def _auc(a: Answers, w: Floats) -> Floats:
    probabilities = a.needed_probabilities()
    areas = np.stack([area(a.truth_codes == c, probabilities[:, c], w) for c in a.positive])
    known = np.isfinite(areas)
    total = np.where(known, areas, 0.0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), 0.5)


def _average_precision(a: Answers, w: Floats) -> Floats:
    probabilities = a.needed_probabilities()
    return _average(np.stack([average_precision(a.truth_codes == c, probabilities[:, c], w) for c in a.positive], axis=1))


def _ece(a: Answers, w: Floats) -> Floats:
    said, hit = a.confidence()
    gap = (said - hit)[:, None] * _hot(np.minimum((said * ECE_BINS).astype(np.int64), ECE_BINS - 1), ECE_BINS)
    return np.asarray(np.abs(w @ gap).sum(axis=1) / w.sum(axis=1))


def _f1(a: Answers, w: Floats) -> Floats:
    both, truth, value = _counts(a, w, a.positive)
    return _average(_share(2 * both, truth + value))


def _precision(a: Answers, w: Floats) -> Floats:
    both, _, value = _counts(a, w, a.positive)
    return _average(_share(both, value))


def _recall(a: Answers, w: Floats) -> Floats:
    both, truth, _ = _counts(a, w, a.positive)
    return _average(_share(both, truth))


def _balanced_accuracy(a: Answers, w: Floats) -> Floats:
    both, truth, _ = _counts(a, w, range(len(a.names)))
    return np.asarray(_share(both, truth).sum(axis=1) / np.maximum((truth > 0).sum(axis=1), 1))


def _mcc(a: Answers, w: Floats) -> Floats:
    # Gorodkin, Comparing two K-category assignments by a K-category correlation coefficient, 2004.
    both, truth, value = _counts(a, w, range(len(a.names)))
    rows = w.sum(axis=1)
    covered = both.sum(axis=1) * rows - (truth * value).sum(axis=1)
    spread = (rows**2 - (truth**2).sum(axis=1)) * (rows**2 - (value**2).sum(axis=1))
    return _share(covered, np.sqrt(np.maximum(spread, 0.0)))


def _counts(a: Answers, w: Floats, classes: Sequence[int]) -> tuple[Floats, Floats, Floats]:
    """Weigh, per class, the rows where truth and value are it, where the truth is, and where the value is."""
    truth = np.stack([a.truth_codes == c for c in classes], axis=1)
    value = np.stack([a.value_codes == c for c in classes], axis=1)
    both, of_truth, of_value = (w @ part.astype(np.float64) for part in (truth & value, truth, value))
    return both, of_truth, of_value


def _hot(codes: npt.NDArray[np.int64], width: int) -> Floats:
    return np.asarray(codes[:, None] == np.arange(width), dtype=np.float64)


METRICS: dict[str, Weighted] = {
    "mae": _mae,
    "rmse": _rmse,
    "r2": _r2,
    "mape": _mape,
    "smape": _smape,
    "medae": _medae,
    "log_loss": _log_loss,
    "accuracy": _accuracy,
    "auc": _auc,
    "f1": _f1,
    "brier": _brier,
    "balanced_accuracy": _balanced_accuracy,
    "precision": _precision,
    "recall": _recall,
    "mcc": _mcc,
    "average_precision": _average_precision,
    "ece": _ece,
}
"""Every metric by name. Of two classes the second is the positive one; of more, auc and average_precision are one
against the rest, and they, f1, precision and recall are averaged over classes. ece has `ECE_BINS` bins of equal width."""

_REGRESSION = ("mae", "rmse", "r2", "mape", "smape", "medae")
_ANSWERS_ALONE = ("accuracy", "f1", "balanced_accuracy", "precision", "recall", "mcc")
_CLASSES = (
    *("log_loss", "accuracy", "auc", "f1", "brier"),
    *("balanced_accuracy", "precision", "recall", "mcc", "average_precision", "ece"),
)
_HIGHER = {"r2", "auc", "average_precision", *_ANSWERS_ALONE}


def metrics_for(task: str, *, probabilities: bool = True) -> tuple[str, ...]:
    """Name the metrics that fit a task; without probabilities those that need none.

    Examples
    --------
    >>> metrics_for("regression")
    ('mae', 'rmse', 'r2', 'mape', 'smape', 'medae')
    """
    if task == "regression":
        return _REGRESSION
    return _CLASSES if probabilities else _ANSWERS_ALONE


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
    found = answered(task, truth, values, probabilities, classes)
    once = np.ones((1, len(truth)))
    return {name: float(drawn[0]) for name, drawn in measure_weighted(names, found, once).items()}


def measure_weighted(names: Iterable[str], answers: Answers, weights: Floats) -> dict[str, Floats]:
    """Measure the same answers several times, each time with other weights of the rows.

    Parameters
    ----------
    names : iterable of str
        Of `METRICS`, fitting the task.
    answers : Answers
    weights : numpy.ndarray of float64, shape (r, n)
        At least 0, each row with a sum above 0; how often a row was drawn, for a bootstrap.

    Returns
    -------
    dict
        Metric to numpy.ndarray of float64, shape (r,).

    Raises
    ------
    UsageError
        On an unknown metric, one of another task, or missing probabilities.
    """
    fitting = metrics_for(answers.task)
    result = {}
    for name in names:
        if name not in fitting:
            raise UsageError(
                f"metric '{name}' does not fit the task {answers.task}", next=f"choose from {', '.join(fitting)}", metric=name
            )
        result[name] = METRICS[name](answers, weights)
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
    answers = answered(task, truth, values, probabilities, classes)
    if task == "regression":
        return np.abs(_error(answers))
    if probabilities is None:
        return np.asarray(answers.truth_codes != answers.value_codes, dtype=np.float64)
    return row_log_loss(answers)
