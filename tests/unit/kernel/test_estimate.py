"""Performance is estimated before a label is in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulle.kernel.estimate import expected_loss, expected_of_classes, fit_calibration, fit_loss, row_losses
from mulle.kernel.metrics import measure

CLASSES = ["no", "yes"]


def answered(seed: int, rows: int, middle: float, heat: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Give what a model says and what is true; `heat` above 1 is a model that is surer than it may be."""
    dice = np.random.default_rng(seed)
    logit = dice.normal(middle, 1.5, rows)
    truth = np.where(dice.random(rows) < 1 / (1 + np.exp(-logit)), "yes", "no").astype(object)
    yes = 1 / (1 + np.exp(-logit * heat))
    return np.column_stack([1 - yes, yes]), truth


@pytest.mark.parametrize("metric", ["accuracy", "log_loss", "brier", "auc", "f1"])
@pytest.mark.parametrize("heat", [1.0, 2.5])
def test_confidence_tells_the_metric_of_rows_unlike_the_holdout(metric: str, heat: float) -> None:
    learned = fit_calibration(*answered(0, 8_000, 0.0, heat), CLASSES)
    for middle in (-1.0, 0.5):
        said, truth = answered(1, 8_000, middle, heat)
        values = np.array(CLASSES, dtype=object)[said.argmax(axis=1)]
        true = measure([metric], "binary", truth, values, said, CLASSES)[metric]
        assert expected_of_classes(metric, "binary", said, learned) == pytest.approx(true, abs=0.05)


def test_uncalibrated_confidence_would_have_been_wrong() -> None:
    said, truth = answered(0, 8_000, 0.0, 2.5)
    right = float((np.array(CLASSES, dtype=object)[said.argmax(axis=1)] == truth).mean())
    assert said.max(axis=1).mean() > right + 0.05
    assert expected_of_classes("accuracy", "binary", said, fit_calibration(said, truth, CLASSES)) == pytest.approx(
        right, abs=0.01
    )


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_calibration_rises_and_keeps_the_mean(rows: list[tuple[float, bool]]) -> None:
    yes = np.array([p for p, _ in rows])
    truth = ["yes" if hit else "no" for _, hit in rows]
    learned = fit_calibration(np.column_stack([1 - yes, yes]), truth, CLASSES)
    x, y = learned["said"][1], learned["true"][1]
    assert x == sorted(x)
    assert y == sorted(y)
    assert np.interp(yes, x, y).mean() == pytest.approx(np.mean([hit for _, hit in rows]), abs=1e-6)


def told(seed: int, rows: int, hard: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give rows whose error is five times as large where the second feature is above 0; `hard` is the share of such."""
    dice = np.random.default_rng(seed)
    matrix = dice.normal(size=(rows, 3)).astype(np.float32)
    matrix[:, 1] = np.abs(matrix[:, 1]) * np.where(dice.random(rows) < hard, 1, -1)
    matrix[:5, 2] = np.nan
    values = matrix[:, 0].astype(np.float64)
    return matrix, values, values + dice.normal(size=rows) * np.where(matrix[:, 1] > 0, 5.0, 1.0)


@pytest.mark.parametrize("metric", ["mae", "rmse"])
def test_a_model_of_the_loss_tells_it_where_other_rows_come(metric: str) -> None:
    learned = fit_loss(*(told(0, 6_000, 0.3)[i] for i in (0, 1, 2)), metric)
    assert learned is not None
    found: list[float] = []
    for hard in (0.1, 0.3, 0.9):
        matrix, values, truth = told(1, 6_000, hard)
        true = measure([metric], "regression", truth, values)[metric]
        said = expected_loss(matrix, values, learned)
        assert said == pytest.approx(true, rel=0.25)
        found.append(said)
    assert found[0] < 0.8 * found[1] < 0.7 * found[2]


def test_without_anything_to_learn_it_is_the_holdouts_loss() -> None:
    dice = np.random.default_rng(0)
    matrix, values = dice.normal(size=(2_000, 8)).astype(np.float32), dice.normal(size=2_000)
    learned = fit_loss(matrix, values, values + dice.normal(size=2_000), "mae")
    assert learned is not None
    assert expected_loss(matrix[:500] + 1, values[:500], learned) == pytest.approx(np.sqrt(2 / np.pi), rel=0.06)


def test_what_is_no_mean_of_rows_or_too_little_is_not_learned() -> None:
    matrix, values, truth = told(0, 200, 0.3)
    assert fit_loss(matrix, values, truth, "r2") is None
    assert fit_loss(matrix[:50], values[:50], truth[:50], "mae") is None
    assert np.sqrt(row_losses("rmse", truth, values).mean()) == pytest.approx(
        measure(["rmse"], "regression", truth, values)["rmse"]
    )
