"""Shuffling a feature costs what the model makes of it: no more, no less, and as surely as the rows can tell."""

from __future__ import annotations

import numpy as np
import pytest

from mulle.lifecycle.evaluation.importance import Loss, Matrix, permutation_importance, worth_a_look


def weighted(matrix: Matrix, weights: np.ndarray, noise: float = 0.0) -> Loss:
    """The absolute error of a linear model on a target that it made, noise aside."""
    truth = matrix @ weights + np.random.default_rng(9).normal(0, noise, len(matrix))

    def loss(given: Matrix) -> np.ndarray:
        return np.abs(given @ weights - np.tile(truth, len(given) // len(truth)))

    return loss


def rows(n: int = 1_000, k: int = 4) -> Matrix:
    return np.random.default_rng(0).normal(size=(n, k)).astype(np.float32)


def test_importance_is_the_mean_absolute_difference_of_two_draws() -> None:
    matrix, weights = rows(), np.array([3.0, 1.0, 0.0, 0.0], dtype=np.float32)
    features = {"a": [0], "b": [1], "c": [2], "d": [3]}
    found = permutation_importance(matrix, features, weighted(matrix, weights), seed=0)
    assert [i.column for i in found] == ["a", "b", "c", "d"]
    # Two independent standard normals differ by 2 / sqrt(pi) on average.
    for one, weight in zip(found, weights, strict=True):
        assert one.low <= weight * 2 / np.sqrt(np.pi) <= one.high
    assert (found[2].worse, found[2].low, found[2].high) == (0, 0, 0)


def test_intervals_hold_the_importance_of_all_rows_about_as_often_as_they_say() -> None:
    weights, held = np.array([1.0, 1.0], dtype=np.float32), 0
    true = 2 / np.sqrt(np.pi)
    for draw in range(60):
        matrix = np.random.default_rng(draw).normal(size=(200, 2)).astype(np.float32)
        (first,) = permutation_importance(matrix, {"a": [0]}, weighted(matrix, weights), seed=draw)
        held += first.low <= true <= first.high
    assert held >= 54


def test_columns_of_one_feature_are_shuffled_as_one() -> None:
    matrix = rows()
    matrix[:, 1] = -matrix[:, 0]
    weights = np.array([1.0, 1.0, 0.0, 0.0], dtype=np.float32)
    (found,) = permutation_importance(matrix, {"both": [0, 1]}, weighted(matrix, weights), seed=0)
    assert found.worse == pytest.approx(0, abs=1e-6)


def test_a_features_importance_does_not_depend_on_the_others_asked_for() -> None:
    matrix, weights = rows(), np.ones(4, dtype=np.float32)
    loss = weighted(matrix, weights, noise=0.5)
    alone = permutation_importance(matrix, {"b": [1]}, loss, seed=3)[0]
    among = {i.column: i for i in permutation_importance(matrix, {"a": [0], "b": [1], "c": [2]}, loss, seed=3)}
    assert among["b"] == alone


def test_the_few_that_matter_are_found_among_thousands_without_trying_each() -> None:
    matrix, weights = rows(300, 2_000), np.zeros(2_000, dtype=np.float32)
    weights[[7, 700, 1_999]] = 2.0
    calls = 0
    inner = weighted(matrix, weights, noise=0.1)

    def loss(given: Matrix) -> np.ndarray:
        nonlocal calls
        calls += 1
        return inner(given)

    features = {f"f{i}": [i] for i in range(2_000)}
    found, left = worth_a_look(matrix, features, loss, seed=0)
    assert sorted(found) == ["f1999", "f7", "f700"]
    assert left == 0
    assert calls < 120
    found, left = worth_a_look(matrix, features, loss, seed=0, least=1, enough=lambda: True)
    assert len(found) == 1, "some are found whatever time there is"
    assert left > 0


def test_it_ends_when_the_time_is_up() -> None:
    matrix, weights = rows(), np.ones(4, dtype=np.float32)
    asked = iter([False, False, True])
    found = permutation_importance(
        matrix, {"a": [0], "b": [1], "c": [2]}, weighted(matrix, weights), seed=0, enough=lambda: next(asked)
    )
    assert {i.column for i in found} == {"a", "b"}
