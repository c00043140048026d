"""The search finds the better candidate, survives a broken one, and repeats itself."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulle.core.declare.candidates import dummy, extra_trees, lightgbm, logistic, random_forest, ridge
from mulle.core.declare.training import expanding, groups, kfold, stratified
from mulle.core.errors import DataError, TrialError
from mulle.core.records.bundle import FeatureSpec
from mulle.kernel.fitted import answers, classes_of
from mulle.lifecycle.training import search as module
from mulle.lifecycle.training import trial
from mulle.lifecycle.training.fit import fit
from mulle.lifecycle.training.search import Plan, search

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


def test_an_earlier_winner_from_another_time_is_moved_into_today_s_ranges():
    params = {"n_estimators": 5000, "learning_rate": 0.2, "objective": "gone", "forgotten": 3}
    first = run(*rows(), warm=[{"candidate": "lightgbm", "params": params}]).trials[1]
    assert (first["candidate"], first["state"]) == ("lightgbm", "done")
    assert first["params"]["n_estimators"] == 200
    assert first["params"]["learning_rate"] == 0.2
    assert first["params"]["objective"] == "regression"
    assert "forgotten" not in first["params"]


def test_a_failing_trial_is_recorded_with_its_reason_and_the_search_goes_on():
    found = run(*rows(), candidates=(ridge(solver="no such solver"), lightgbm()))
    failed = [t for t in found.trials if t["state"] == "failed"]
    assert failed
    assert all(t["score"] is None and "solver" in t["reason"] for t in failed)
    assert found.settings["candidate"] == "lightgbm"


def test_what_fails_again_and_again_is_tried_less_and_less():
    found = run(*rows(), candidates=(ridge(solver="no such solver"), lightgbm(n_estimators=5)), trials=40)
    late = [t["candidate"] for t in found.trials[20:]]
    assert late.count("ridge") <= 4


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
    monkeypatch.setattr(trial, "fit", lambda s, matrix, *a, **k: seen.append(len(matrix)) or fit(s, matrix, *a, **k))
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


def test_with_folds_the_score_is_their_mean_and_each_is_recorded():
    found = run(*rows(), plan=Plan(validation=kfold(4)))
    for told in found.trials:
        assert len(told["folds"]) == 4
        assert told["score"] == pytest.approx(np.mean(told["folds"]))
    assert len(set(found.trials[1]["folds"])) == 4
    once = run(*rows())
    assert all(t["folds"] == [t["score"]] for t in once.trials)


def test_features_are_chosen_fold_by_fold_and_not_by_what_is_scored():
    matrix, target = rows()
    seen = []

    def narrow(train, told, specs):
        seen.append(len(train))
        return [s.name for s in specs[1:]]

    found = run(matrix, target, plan=Plan(validation=kfold(4), narrow=narrow))
    assert seen == [300] * 4
    without = search(
        matrix[:, 1:], target, None, task="regression", candidates=(ridge(), lightgbm()), specs=SPECS[1:], trials=6, timeout=None,
        seed=0, plan=Plan(validation=kfold(4)),
    )  # fmt: skip
    assert [t["score"] for t in found.trials] == [t["score"] for t in without.trials]


def test_folds_by_group_see_through_what_is_known_by_group_alone():
    random = np.random.default_rng(0)
    customer = np.repeat(np.arange(40), 10)
    matrix, _ = rows()
    matrix[:, 1] = customer
    level = random.normal(0, 10, 40)
    target = level[customer] + random.normal(0, 1, 400)
    options = {"candidates": (lightgbm(min_child_samples=5),), "trials": 2, "order": None}
    random_folds = run(matrix, target, plan=Plan(validation=kfold(5)), **options).trials[1]["score"]
    by_group = run(matrix, target, plan=Plan(validation=groups("customer"), groups=customer), **options).trials[1]["score"]
    assert random_folds < 4 < by_group


def test_settings_that_are_behind_on_few_rows_are_stopped_there_and_the_best_goes_on_to_the_end():
    matrix, target = rows(6000)
    candidates = (ridge(), lightgbm(n_estimators=40), extra_trees(n_estimators=5))
    found = run(matrix, target, candidates=candidates, trials=24, plan=Plan(prune=True))
    pruned = [t for t in found.trials if t["state"] == "pruned"]
    assert pruned
    for told in pruned:
        assert (told["score"], told["failure"], told["folds"]) == (None, "pruned", [])
        assert "a third of the others" in told["reason"]
    best = min((t for t in found.trials if t["score"] is not None), key=lambda t: t["score"])
    assert found.settings["params"] == best["params"]
    assert all(len(t["rungs"]) == 2 for t in found.trials[1:5]), "the first are measured on each budget and stopped on none"
    again = run(matrix, target, candidates=candidates, trials=24, plan=Plan(prune=True))
    assert [{**t, "seconds": 0} for t in found.trials] == [{**t, "seconds": 0} for t in again.trials]


DAY = 86_400_000_000


def shifted(n=800):
    """Rows whose meaning turned round: what was learnt before the last quarter misleads."""
    matrix, target = rows(n)
    early = np.arange(n) < n * 6 // 10
    return matrix, np.where(early, -target, target), np.arange(n) * DAY


def test_the_window_is_searched_recorded_and_fitted_by():
    matrix, target, order = shifted()
    found = run(matrix, target, order=order, plan=Plan(windows=("all", "160d")), trials=8)
    assert found.settings["train_on"] == "160d"
    assert {t["train_on"] for t in found.trials[1:]} == {"all", "160d"}
    fitted = fit(found.settings, matrix, target, task="regression", specs=SPECS, seed=0, order=order)
    alone = {k: v for k, v in found.settings.items() if k != "train_on"}
    late = order > order.max() - 160 * DAY
    same = fit(alone, matrix[late], target[late], task="regression", specs=SPECS, seed=0)
    assert fitted.predict(matrix).tolist() == same.predict(matrix).tolist()
    with pytest.raises(DataError, match="no times"):
        fit(found.settings, matrix, target, task="regression", specs=SPECS, seed=0)


def test_members_that_know_other_classes_are_no_ensemble():
    matrix, target = rows()
    classes = np.where(np.arange(400) < 200, "old", labels(target, "binary")).astype(object)
    members = [{"candidate": "logistic", "params": {}, "weight": 0.5}, {"candidate": "logistic", "params": {}, "weight": 0.5}]
    members[1]["train_on"] = "100d"
    with pytest.raises(DataError, match="has no row of some class"):
        fit({"members": members}, matrix, classes, task="multiclass", specs=SPECS, seed=0, order=np.arange(400) * DAY)


def test_all_rows_win_where_the_past_still_holds_and_settings_stay_as_they_were():
    matrix, target = rows(800)
    found = run(matrix, target, order=np.arange(800) * DAY, plan=Plan(windows=("all", "25d")), trials=8)
    assert set(found.settings) == {"candidate", "params"}


def test_an_ensemble_is_kept_when_it_beats_the_best_model_and_its_members_say_what_they_are():
    random = np.random.default_rng(1)
    matrix = random.normal(size=(3000, 3)).astype(np.float32)
    matrix[:, 0] = 0
    bent = 2 * matrix[:, 1] + np.sin(2 * matrix[:, 2]) * matrix[:, 1] + np.sign(matrix[:, 2])
    target = bent + random.normal(0, 0.5, 3000)
    candidates = (ridge(), lightgbm(), random_forest(), extra_trees())
    found = run(matrix, target, candidates=candidates, trials=8, plan=Plan(ensemble=3))
    members = found.settings["members"]
    assert 2 <= len(members) <= 3
    assert sum(m["weight"] for m in members) == pytest.approx(1)
    assert "an ensemble of" in found.notes[0]
    assert {str((m["candidate"], m["params"])) for m in members} <= {str((t["candidate"], t["params"])) for t in found.trials}
    fitted = fit(found.settings, matrix[:2400], target[:2400], task="regression", specs=SPECS, seed=0)
    parts = [fit(m, matrix[:2400], target[:2400], task="regression", specs=SPECS, seed=0) for m in members]

    def error(model):
        return np.abs(model.predict(matrix[2400:]) - target[2400:]).mean()

    assert error(fitted) < min(map(error, parts))


def test_no_ensemble_where_one_model_says_it_all():
    matrix, _ = rows()
    matrix = np.nan_to_num(matrix)
    target = matrix[:, 1] * 2 + matrix[:, 2] + np.random.default_rng(0).normal(0, 0.01, 400)
    found = run(matrix, target, candidates=(ridge(alpha=1e-3), lightgbm(n_estimators=5)), trials=4, plan=Plan(ensemble=5))
    assert found.settings == {"candidate": "ridge", "params": {"alpha": 1e-3}}
    assert found.notes == ("no ensemble beats the best model on rows it was not chosen on",)


def test_probabilities_that_are_too_sure_are_calibrated_and_honest_ones_are_left_alone():
    random = np.random.default_rng(0)
    matrix = random.normal(size=(2000, 3)).astype(np.float32)
    target = np.where(random.random(2000) < 1 / (1 + np.exp(-matrix[:, 0])), "yes", "no").astype(object)
    sure = lightgbm(n_estimators=200, learning_rate=0.3, num_leaves=63, min_child_samples=2, reg_lambda=0.001)
    found = run(matrix, target, "binary", candidates=(sure,), trials=2, plan=Plan(calibrate=True))
    assert found.settings["calibration"]["scale"] < 0.7
    told = fit(found.settings, matrix[:1000], target[:1000], task="binary", specs=SPECS, seed=0)
    plain = {k: v for k, v in found.settings.items() if k != "calibration"}
    before = fit(plain, matrix[:1000], target[:1000], task="binary", specs=SPECS, seed=0)

    def loss(model):
        truth = (target[1000:] == "yes").astype(int)
        return -np.log(answers(model, matrix[1000:], "binary")[np.arange(1000), truth]).mean()

    assert loss(told) < loss(before) - 0.05
    honest = run(matrix, target, "binary", candidates=(logistic(C=1.0),), trials=2, plan=Plan(calibrate=True))
    assert "calibration" not in honest.settings or abs(honest.settings["calibration"]["scale"] - 1) < 0.25


def test_a_trial_that_overruns_is_ended_even_in_this_process():
    # A loop that returns to Python now and then, as boosting and solvers do.
    began = time.monotonic()
    found = run(*rows(), candidates=(ridge(), lightgbm(n_estimators=10**7)), trials=3, plan=Plan(trial_timeout=0.5))
    assert time.monotonic() - began < 20
    assert [(t["candidate"], t["failure"]) for t in found.trials[1:]] == [("ridge", ""), ("lightgbm", "timeout")]
    assert found.settings["candidate"] == "ridge"


def test_the_time_of_the_search_ends_a_trial_under_way_in_this_process():
    began = time.monotonic()
    found = run(*rows(), candidates=(ridge(), lightgbm(n_estimators=10**7)), trials=50, timeout=1.5)
    assert time.monotonic() - began < 15
    assert found.settings["candidate"] == "ridge"
    assert found.trials[-1]["failure"] in ("timeout", "")


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
