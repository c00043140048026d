"""How well a model does while no label is in: learned on the holdout, written into the bundle, evaluated per window.

Classes: confidence-based estimation. Where probabilities are what is observed, they say how often an answer is right, so the
expected metric needs no truth; they are made so by an isotonic map of each class (Kivimaki, Bialek, Kuberski and Nurminen,
Confidence-based Estimators for Predictive Performance in Model Monitoring, JAIR 82, 2025; the method of NannyML's CBPE).
Regression: direct loss estimation, a small model of the loss by features and answer (NannyML's DLE), here boosted by
components (Buhlmann and Yu, Boosting with the L2 loss, JASA 98, 2003) over bins, so that it is a table.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mulle.core.records.base import Json
from mulle.kernel.answered import answered
from mulle.kernel.metrics import measure_weighted

__all__ = ["LOSSES", "expected_loss", "expected_of_classes", "fit_calibration", "fit_loss", "row_losses"]

Floats = NDArray[np.float64]

LOSSES = ("mae", "rmse", "mape")
"""Metrics of regression that are a mean over rows, of which a loss can be learned."""

_BINS, _ROUNDS, _RATE, _PRIOR = 32, 150, 0.2, 20.0
_ROWS, _CELLS = 20_000, 400_000


def fit_calibration(probabilities: Floats, truth: Sequence[str] | NDArray[np.object_], classes: Sequence[str]) -> Json:
    """Learn how often each class is the truth, by the probability that was said for it.

    Parameters
    ----------
    probabilities : numpy.ndarray, shape (n, classes)
        Of rows that the model was not fitted on.
    truth : sequence of str, length n
    classes : sequence of str

    Returns
    -------
    Json
        ``classes`` and for each the map's ``said`` and ``true``, both rising.

    Examples
    --------
    >>> found = fit_calibration(np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.7, 0.3]]), ["a", "a", "b", "b"], ["a", "b"])
    >>> found["true"][1]
    [0.0, 0.0, 1.0, 1.0]
    """
    names = np.asarray(truth, dtype=object)
    maps = [_isotonic(probabilities[:, i], (names == c).astype(np.float64)) for i, c in enumerate(classes)]
    return {"classes": list(classes), "said": [m[0] for m in maps], "true": [m[1] for m in maps]}


def expected_of_classes(metric: str, task: str, probabilities: Floats, estimate: Json) -> float:
    """Give a metric's expectation when each row's truth has the calibrated probabilities.

    Each row counts once as each class, weighted by how probable that is; of many rows an evenly spaced sample is taken.

    Parameters
    ----------
    metric : str
    task : str
    probabilities : numpy.ndarray, shape (n, classes)
        As the model said them, in the order of ``estimate["classes"]``.
    estimate : Json
        What `fit_calibration` gave.
    """
    classes = list(estimate["classes"])
    step = -(-probabilities.size // _CELLS)
    said = probabilities[::step]
    true = np.column_stack([np.interp(said[:, i], x, y) for i, (x, y) in enumerate(_maps(estimate))])
    total = true.sum(axis=1, keepdims=True)
    true = np.where(total > 0, true / np.where(total > 0, total, 1.0), said)
    n, k = said.shape
    names = np.array(classes, dtype=object)
    every = answered(task, np.tile(names, n), np.repeat(names[said.argmax(axis=1)], k), np.repeat(said, k, axis=0), classes)
    return float(measure_weighted([metric], every, true.reshape(1, -1))[metric][0])


def row_losses(metric: str, truth: Floats, values: Floats) -> Floats:
    """Give the rows' losses whose mean (of rmse: its root) is the metric.

    Examples
    --------
    >>> row_losses("rmse", np.array([1.0]), np.array([3.0])).tolist()
    [4.0]
    """
    error = np.abs(values - truth)
    if metric == "mape":
        return np.asarray(error / np.maximum(np.abs(truth), np.finfo(np.float64).eps))
    return error**2 if metric == "rmse" else error


def fit_loss(matrix: NDArray[np.float32], values: Floats, truth: Floats, metric: str) -> Json | None:
    """Learn a table of the loss by features and answer.

    Every third row decides how many rounds are worth it. None when the metric is none of `LOSSES`, or with fewer than 100 rows.

    Parameters
    ----------
    matrix : numpy.ndarray of float32, shape (n, features)
        Rows that the model was not fitted on, encoded.
    values, truth : numpy.ndarray, shape (n,)
    metric : str
    """
    if metric not in LOSSES or len(values) < 100:
        return None
    step = -(-len(values) // _ROWS)
    columns = np.column_stack([matrix[::step], values[::step]]).astype(np.float64)
    losses = row_losses(metric, truth[::step], values[::step])
    edges = [_edges(column) for column in columns.T]
    codes = [_codes(column, cut) for column, cut in zip(columns.T, edges, strict=True)]
    judge = np.arange(len(losses)) % 3 == 0
    rounds = _boost(codes, edges, losses, ~judge, judge)[1]
    tables = _boost(codes, edges, losses, np.ones(len(losses), dtype=bool), None, rounds)[0]
    kept = [i for i, table in enumerate(tables) if np.any(table)]
    return {
        "metric": metric, "base": float(losses.mean()), "columns": kept, "edges": [edges[i].tolist() for i in kept],
        "tables": [tables[i].tolist() for i in kept],
    }  # fmt: skip


def expected_loss(matrix: NDArray[np.float32], values: Floats, estimate: Json) -> float:
    """Give a regression metric's expectation for rows without truth.

    Parameters
    ----------
    matrix : numpy.ndarray of float32, shape (n, features)
    values : numpy.ndarray, shape (n,)
        The answers.
    estimate : Json
        What `fit_loss` gave.
    """
    losses = np.full(len(values), float(estimate["base"]))
    for place, edges, table in zip(estimate["columns"], estimate["edges"], estimate["tables"], strict=True):
        column = values if place == matrix.shape[1] else matrix[:, place].astype(np.float64)
        losses += np.asarray(table)[_codes(column, np.asarray(edges))]
    # A table of means may say less than nothing of single rows; a mean loss is none the less above it.
    mean = max(0.0, float(losses.mean()))
    return float(np.sqrt(mean)) if estimate["metric"] == "rmse" else mean


def _boost(
    codes: Sequence[NDArray[np.int64]], edges: Sequence[Floats], losses: Floats, fitted: NDArray[np.bool_],
    judge: NDArray[np.bool_] | None, rounds: int = _ROUNDS,
) -> tuple[list[Floats], int]:  # fmt: skip
    """Correct the mean by the one column's bins that explain most of what is left, again and again."""
    tables = [np.zeros(len(cut) + 2) for cut in edges]
    left = losses - losses[fitted].mean()
    best, chosen = float(np.square(left[judge]).sum()) if judge is not None else 0.0, 0
    inside = [code[fitted] for code in codes]
    counts = [np.bincount(code, minlength=len(t)) for code, t in zip(inside, tables, strict=True)]
    for number in range(1, rounds + 1):
        sums = [np.bincount(code, weights=left[fitted], minlength=len(t)) for code, t in zip(inside, tables, strict=True)]
        gains = [float(np.sum(s**2 / (c + _PRIOR))) for s, c in zip(sums, counts, strict=True)]
        place = int(np.argmax(gains))
        move = _RATE * sums[place] / (counts[place] + _PRIOR)
        tables[place] = tables[place] + move
        left = left - move[codes[place]]
        if judge is not None and (missed := float(np.square(left[judge]).sum())) < best * (1 - 1e-4):
            best, chosen = missed, number
    return tables, chosen if judge is not None else rounds


def _edges(column: Floats) -> Floats:
    finite = column[np.isfinite(column)]
    if not finite.size:
        return np.zeros(0)
    return np.unique(np.quantile(finite, np.linspace(0, 1, _BINS + 1)[1:-1], method="lower"))


def _codes(column: Floats, edges: Floats) -> NDArray[np.int64]:
    # Nulls have a bin of their own, the last.
    return np.where(np.isnan(column), len(edges) + 1, np.searchsorted(edges, column, side="left"))


def _isotonic(said: Floats, hit: Floats) -> tuple[list[float], list[float]]:
    """Fit a rising step function by pooling neighbours that violate it (Ayer et al., Ann. Math. Stat. 26, 1955)."""
    order = np.argsort(said, kind="stable")
    xs, starts = np.unique(said[order], return_index=True)
    sums, counts = np.add.reduceat(hit[order], starts), np.diff(np.append(starts, len(said)))
    blocks: list[list[float]] = []
    for x, total, count in zip(xs.tolist(), sums.tolist(), counts.tolist(), strict=True):
        blocks.append([x, x, total, count])
        while len(blocks) > 1 and blocks[-2][2] * blocks[-1][3] >= blocks[-1][2] * blocks[-2][3]:
            _, high, more, rows = blocks.pop()
            blocks[-1] = [blocks[-1][0], high, blocks[-1][2] + more, blocks[-1][3] + rows]
    ends = [(x, total / count) for low, high, total, count in blocks for x in dict.fromkeys((low, high))]
    return [x for x, _ in ends], [y for _, y in ends]


def _maps(estimate: Json) -> list[tuple[list[float], list[float]]]:
    return list(zip(estimate["said"], estimate["true"], strict=True))
