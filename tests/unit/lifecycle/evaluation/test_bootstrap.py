"""Intervals hold what they promise: the value inside, the truth nearly always, the same for the same seed, in no time."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulle.kernel.answered import Answers, answered
from mulle.kernel.metrics import measure, measure_weighted, metrics_for
from mulle.lifecycle.evaluation.bootstrap import DRAWN_ROWS, draws, intervals
from mulle.lifecycle.evaluation.evaluate import calibrate, measured


def sure(name: str, answers: Answers, **more: int) -> tuple[float, float]:
    value = float(measure_weighted([name], answers, np.ones((1, len(answers.truth))))[name][0])
    return intervals({name: value}, answers, **more)[name]


def some(task: str, seed: int, n: int) -> Answers:
    random = np.random.default_rng(seed)
    if task == "regression":
        truth = random.normal(5, 2, n)
        return answered(task, truth, truth + random.normal(0, 1, n))
    classes = ("no", "yes") if task == "binary" else ("a", "b", "c")
    shares = random.dirichlet(np.ones(len(classes)), n)
    names = np.array(classes, dtype=object)
    truth = np.array([random.choice(names, p=row) for row in shares], dtype=object)
    return answered(task, truth, names[shares.argmax(axis=1)], shares, classes)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["regression", "binary", "multiclass"]), st.integers(2, 300))
def test_every_metric_lies_within_its_interval_and_a_seed_repeats_it(seed: int, task: str, n: int) -> None:
    answers = some(task, seed, n)
    found = measured(answers, seed=seed)
    assert set(found.intervals) <= set(found.metrics) == set(metrics_for(task))
    assert len(found.intervals) == len(found.metrics)
    for name, (low, high) in found.intervals.items():
        assert low - 1e-9 <= found.metrics[name] <= high + 1e-9, name
    assert measured(answers, seed=seed) == found


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 1000))
def test_an_interval_is_in_the_metrics_own_units(seed: int, scale: float) -> None:
    answers = some("regression", seed, 80)
    larger = answered("regression", answers.truth * scale, answers.values * scale)  # type: ignore[operator]
    for name in ("mae", "rmse", "medae"):
        ends = np.array(sure(name, answers, seed=seed))
        assert np.array(sure(name, larger, seed=seed)) == pytest.approx(ends * scale)


def test_the_truth_is_inside_about_as_often_as_promised() -> None:
    inside = 0
    for seed in range(300):
        error = np.random.default_rng(seed).normal(0, 1, 150)
        low, high = sure("mae", answered("regression", np.zeros(150), error), seed=seed, resamples=300)
        inside += low <= np.sqrt(2 / np.pi) <= high
    assert 0.90 <= inside / 300 <= 0.99, "95% were promised"


@pytest.mark.parametrize("n", [500, DRAWN_ROWS, 10 * DRAWN_ROWS])
def test_a_mean_over_any_number_of_rows_is_as_sure_as_theory_says(n: int) -> None:
    error = np.random.default_rng(1).exponential(3, n)
    low, high = sure("mae", answered("regression", np.zeros(n), error))
    assert (high - low) / 2 == pytest.approx(1.96 * error.std() / np.sqrt(n), rel=0.15)


@pytest.mark.parametrize(("task", "seconds"), [("regression", 1.0), ("binary", 1.0)])
def test_a_hundred_thousand_rows_cost_less_than_a_second(task: str, seconds: float) -> None:
    random = np.random.default_rng(0)
    share = random.random(100_000)
    truth = np.where(random.random(100_000) < share, "yes", "no").astype(object)
    answers = (
        answered(task, share, share + random.normal(size=100_000))
        if task == "regression"
        else answered(task, truth, np.where(share > 0.5, "yes", "no"), np.stack([1 - share, share], axis=1), ("no", "yes"))
    )
    best = np.inf
    for _ in range(3):
        began = time.process_time()
        measured(answers)
        best = min(best, time.process_time() - began)
    assert best < seconds


def test_what_has_no_interval_says_so_by_having_none() -> None:
    assert intervals({"mae": 1.0}, answered("regression", np.zeros(1), np.ones(1))) == {}
    assert intervals({"mae": np.nan}, answered("regression", np.zeros(3), np.array([1.0, np.nan, 1.0]))) == {}


def test_draws_are_with_repetition_and_of_all_rows() -> None:
    drawn = draws(50, seed=3, resamples=400)
    assert (drawn.sum(axis=1) == 50).all()
    assert drawn.mean() == 1
    assert (drawn == 0).mean() == pytest.approx(np.exp(-1), abs=0.02)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 20))
def test_calibration_adds_up_over_its_bins(seed: int, bins: int) -> None:
    answers = some("binary", seed, 400)
    found = calibrate(answers, bins=bins)
    assert found is not None
    assert sum(b.rows for b in found.bins) == 400
    assert all(b.low <= b.said <= b.high + 1e-12 and 0 <= b.observed <= 1 for b in found.bins)
    assert found.error == pytest.approx(sum(b.rows * abs(b.said - b.observed) for b in found.bins) / 400)
    assert (
        found.brier == measure(["brier"], "binary", answers.truth, answers.values, answers.probabilities, ("no", "yes"))["brier"]
    )


def test_what_is_said_too_surely_is_badly_calibrated() -> None:
    random = np.random.default_rng(0)
    truth = np.where(random.random(5_000) < 0.5, "yes", "no").astype(object)
    for said, error in ((0.5, 0.0), (0.9, 0.4)):
        shares = np.tile([1 - said, said], (5_000, 1))
        found = calibrate(answered("binary", truth, truth, shares, ("no", "yes")))
        assert found is not None
        assert found.error == pytest.approx(error, abs=0.02)
        assert measure(["ece"], "binary", truth, truth, shares, ("no", "yes"))["ece"] == pytest.approx(found.error)
    off = calibrate(answered("regression", np.array([0.0, 4.0]), np.array([-1.0, 3.0])))
    assert off is not None
    assert (off.bias, off.error) == (-1.0, 0.5)
