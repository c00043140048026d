"""The search finds the better candidate, survives a broken one, and repeats itself."""

from __future__ import annotations

import numpy as np
import pytest

from mulle.core.declare.candidates import dummy, extra_trees, lightgbm, logistic, random_forest, ridge
from mulle.core.errors import DataError, TrialError
from mulle.core.records.bundle import FeatureSpec
from mulle.kernel.fitted import answers, classes_of
from mulle.lifecycle.training import search as module
from mulle.lifecycle.training.fit import fit
from mulle.lifecycle.training.search import search

SPECS = (
    FeatureSpec(name="carrier", kind="category", categories=("AA", "B6", "UA")),
    FeatureSpec(name="distance", kind="number"),
    FeatureSpec(name="wind", kind="number"),
)


def rows(n=400, seed=0):
    random = np.random.default_rng(seed)
    matrix = np.stack([random.integers(-1, 3, n), random.uniform(100, 2000, n), random.normal(0, 5, n)], axis=1).astype(
        np.float32
    )
    target = matrix[:, 1] / 8 + 3 * matrix[:, 2] + 10 * matrix[:, 0] + random.normal(0, 2, n)
    matrix[random.random(n) < 0.05, 2] = np.nan
    matrix[random.random(n) < 0.05, 0] = np.nan
    return matrix, target.astype(np.float64)


def labels(target, task):
    if task == "binary":
        return np.where(target > np.median(target), "late", "fine").astype(object)
    return np.array(["short", "middle", "long"], dtype=object)[np.digitize(target, np.quantile(target, [0.3, 0.6]))]


def run(matrix, target, task="regression", candidates=(ridge(), lightgbm()), **more):
    options = {"trials": 6, "timeout": None, "seed": 0, "order": np.arange(len(matrix))} | more
    order = options.pop("order")
    return search(matrix, target, order, task=task, candidates=candidates, specs=SPECS, **options)


def test_the_winner_beats_the_baseline_which_is_trial_zero():
    found = run(*rows())
    assert [t["number"] for t in found.trials] == list(range(6))
    assert found.trials[0]["candidate"] == "dummy"
    best = min(found.trials, key=lambda t: t["score"])
    assert best["score"] < found.trials[0]["score"] / 4
    assert found.settings == {"candidate": best["candidate"], "params": best["params"]}


def test_each_candidate_is_tried_before_the_search_chooses():
    found = run(*rows(), candidates=(ridge(), lightgbm(), random_forest(), extra_trees()))
    assert {t["candidate"] for t in found.trials[1:5]} == {"ridge", "lightgbm", "random_forest", "extra_trees"}


def test_the_same_seed_gives_the_same_trials():
    one, two = run(*rows()), run(*rows())
    assert [{**t, "seconds": 0} for t in one.trials] == [{**t, "seconds": 0} for t in two.trials]


def test_an_earlier_winner_is_tried_first():
    warm = {"candidate": "ridge", "params": {"alpha": 0.125}}
    found = run(*rows(), warm=[warm, {"candidate": "gone", "params": {}}])
    assert found.trials[1]["candidate"] == "ridge"
    assert found.trials[1]["params"] == {"alpha": 0.125}


def test_a_failing_trial_is_recorded_with_its_reason_and_the_search_goes_on():
    found = run(*rows(), candidates=(ridge(solver="no such solver"), lightgbm()))
    failed = [t for t in found.trials if t["state"] == "failed"]
    assert failed
    assert all(t["score"] is None and "solver" in t["reason"] for t in failed)
    assert found.settings["candidate"] == "lightgbm"


def test_when_every_candidate_fails_the_reason_is_told():
    with pytest.raises(TrialError, match="solver"):
        run(*rows(), candidates=(ridge(solver="no such solver"),), trials=3)


def test_what_the_user_fixed_is_never_searched():
    found = run(*rows(), candidates=(lightgbm(n_estimators=11),))
    assert {t["params"]["n_estimators"] for t in found.trials[1:]} == {11}


def test_a_baseline_that_was_not_declared_never_wins():
    matrix, _ = rows(60)
    noise = np.random.default_rng(1).normal(size=60)
    assert run(matrix, noise, candidates=(lightgbm(),), trials=2).settings["candidate"] == "lightgbm"
    assert run(matrix, noise, candidates=(dummy(),), trials=2).settings["candidate"] == "dummy"


def test_no_time_left_still_tries_a_candidate():
    assert len(run(*rows(), timeout=0.0).trials) == 2


def test_large_tables_are_sampled(monkeypatch):
    monkeypatch.setattr(module, "SEARCH_ROWS", 100)
    seen = []
    monkeypatch.setattr(module, "fit", lambda s, matrix, *a, **k: seen.append(len(matrix)) or fit(s, matrix, *a, **k))
    run(*rows())
    assert set(seen) == {80}


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_classes_are_text_and_beat_the_baseline(task):
    matrix, target = rows()
    found = run(matrix, labels(target, task), task, candidates=(logistic(), ridge(), lightgbm(), random_forest()))
    assert all(t["state"] == "done" for t in found.trials)
    fitted = fit(found.settings, matrix, labels(target, task), task=task, specs=SPECS, seed=0)
    assert classes_of(fitted, task) == tuple(sorted(set(labels(target, task))))
    assert answers(fitted, matrix, task).sum(axis=1) == pytest.approx(np.ones(len(matrix)), abs=1e-5)


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
