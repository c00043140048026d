"""The one rule by which every side's answers to a table's test rows are scored."""

from __future__ import annotations

import numpy as np

from benchmarks.tables import Parted

__all__ = ["score"]

_LEAST_CHANCE = float(np.finfo(np.float32).eps)


def score(parted: Parted, predicted: np.ndarray) -> float | None:
    """Score answers to the test rows: mean absolute error or log loss, so lower is better; None when they are none.

    Chances are held to single precision's epsilon and made to add up to one, for each side alike.
    """
    classes = parted.classes
    if predicted.shape != ((len(parted.truth), len(classes)) if classes else (len(parted.truth),)):
        return None
    if not np.isfinite(predicted).all():
        return None
    if not classes:
        return float(np.mean(np.abs(predicted - parted.truth)))
    chances = np.clip(predicted, _LEAST_CHANCE, 1.0)
    chances = chances / chances.sum(axis=1, keepdims=True)
    at = [classes.index(c) for c in parted.truth]
    return float(-np.mean(np.log(chances[np.arange(len(at)), at])))
