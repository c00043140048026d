"""What cannot be trained on is refused with its reason; whatever else the rows hold, a search ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import DAY, SPECS, labels, rows, run

from mulle.core.declare.candidates import extra_trees, lightgbm, ridge
from mulle.core.declare.training import expanding, groups, kfold, stratified
from mulle.core.errors import DataError, TrialError
from mulle.kernel.fitted import answers
from mulle.lifecycle.training.fit import fit
from mulle.lifecycle.training.search import Plan, search


def _nothing(m, t):
    return np.full_like(m, np.nan), t


def _leaking(m, t):
    m = m.copy()
    m[:, 2] = t
    return m, t


@pytest.mark.parametrize(
    ("spoil", "task", "said"),
    [
        (lambda m, t: (m[:10], t[:10]), "regression", "too few"),
        (lambda m, t: (m, np.full_like(t, 3)), "regression", "on every row"),
        (lambda m, t: (m, np.full(len(t), "yes")), "binary", "one class"),
        (lambda m, t: (m, labels(t, "multiclass")), "binary", "3 classes"),
        (lambda m, t: (m, np.where(np.arange(len(t)) == 5, np.nan, t)), "regression", "1 of 400 targets"),
        (_nothing, "regression", "every feature is null"),
        (_leaking, "regression", "'wind' is the target itself"),
        (lambda m, t: (m, np.array([str(int(x > 0)) for x in m[:, 1]])), "binary", "one class"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_before_any_trial(spoil, task, said):
    with pytest.raises(DataError, match=said):
        run(*spoil(*rows()), task)


def test_a_class_that_is_among_the_features_is_found():
    matrix, _ = rows()
    matrix[:, 0] = np.arange(len(matrix)) % 3
    with pytest.raises(DataError, match="carrier"):
        run(matrix, np.array(["AA", "B6", "UA"], dtype=object)[matrix[:, 0].astype(int)], "multiclass")
    matrix[:, 1] = np.arange(len(matrix)) % 2
    with pytest.raises(DataError, match="distance"):
        run(matrix, matrix[:, 1].astype(bool), "binary")


def _monotone(m, t):
    m = m.copy()
    m[:, 1] = -np.arctan(t / 50)
    return m, t


def _null_says_it(m, t):
    m = m.copy()
    m[:, 2] = np.where(t > 100, np.nan, 7)
    return m, np.where(t > 100, "late", "fine").astype(object)


@pytest.mark.parametrize(
    ("spoil", "task", "said"),
    [
        (_monotone, "regression", "'distance' is the target itself, or the target in other words"),
        (lambda m, t: (m[:3], t[:3]), "regression", "3 rows are too few"),
        (lambda m, t: (m, np.where(np.arange(len(t)) == 5, np.inf, t)), "regression", "1 of 400 targets are missing or infinite"),
        (_null_says_it, "binary", "'wind' is the target itself, or the target in other words"),
    ],
)
def test_copies_of_the_target_are_found_in_other_words(spoil, task, said):
    with pytest.raises(DataError, match=said):
        run(*spoil(*rows()), task)


def test_a_number_that_was_written_as_text_is_found_and_a_code_that_is_one_is_not():
    matrix, _ = rows()
    ages = np.random.default_rng(1).integers(20, 60, len(matrix))
    matrix[:, 0] = ages - 20
    written = (replace(SPECS[0], categories=tuple(str(age) for age in range(20, 60))), *SPECS[1:])
    more = {"task": "regression", "candidates": (), "trials": 2, "timeout": None, "seed": 0}
    with pytest.raises(DataError, match="'carrier' is the target itself"):
        search(matrix, ages.astype(float), None, specs=written, **more)
    noise = np.random.default_rng(2).normal(size=len(matrix))
    assert search(matrix, ages + noise, None, specs=written, **more).trials
    named = (replace(SPECS[0], categories=tuple(f"depot {age}" for age in range(20, 60))), *SPECS[1:])
    assert search(matrix, noise, None, specs=named, **more).trials


def test_what_only_nearly_tells_the_target_is_no_leak():
    matrix, target = rows()
    matrix[:, 1] = target + np.random.default_rng(0).normal(0, 0.5, 400)
    assert run(matrix, target).settings
    matrix[:, 1] = np.where(np.arange(400) % 50 == 0, 0, target)
    assert run(matrix, target).settings


def test_two_features_of_one_name_are_refused():
    matrix, target = rows()
    twice = (*SPECS[:2], SPECS[1])
    with pytest.raises(DataError, match="two features are called 'distance'"):
        search(matrix, target, None, task="regression", candidates=(ridge(),), specs=twice, trials=2, timeout=None, seed=0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_whatever_the_rows_a_search_ends_with_a_model_or_with_a_reason(seed):
    dice = np.random.default_rng(seed)
    n, task = int(dice.integers(3, 120)), str(dice.choice(["regression", "binary", "multiclass"]))
    matrix = dice.normal(size=(n, 3)).astype(np.float32) * np.float32(10.0) ** dice.integers(-30, 30, 3)
    matrix[:, 0] = dice.integers(-1, 3, n)
    matrix[dice.random((n, 3)) < dice.choice([0, 0.5, 1], 3)] = np.nan
    target = dice.normal(size=n) * 10.0 ** dice.integers(-9, 9)
    if task != "regression":
        target = dice.choice(["a", "b", "c"], n, p=[0.9, 0.1, 0.0] if task == "binary" else [0.9, 0.08, 0.02]).astype(object)
    kind = [None, expanding(2), groups("g", folds=3), stratified(3), kfold(3)][dice.integers(5)]
    plan = Plan(
        validation=kind,
        groups=np.unique(dice.integers(0, 5, n), return_inverse=True)[1],
        windows=("all", "20d") if seed % 2 and task == "regression" else ("all",),
        prune=bool(seed % 3),
        ensemble=1 + seed % 3,
        calibrate=task != "regression" and seed % 5 == 0,
    )
    candidates = (ridge(), lightgbm(n_estimators=3), extra_trees(n_estimators=2))
    try:
        found = run(matrix, target, task, candidates, order=np.arange(n) * DAY, trials=6, plan=plan)
        told = [t for t in found.trials if t["state"] != "done"]
        assert all(t["failure"] and t["reason"] for t in told)
        fitted = fit(found.settings, matrix, target, task=task, specs=SPECS, seed=0, order=np.arange(n) * DAY)
    except (DataError, TrialError):
        return
    assert np.isfinite(answers(fitted, matrix, task)).all()
