"""The search finds the better candidate, survives a broken one, and repeats itself."""

from __future__ import annotations

import time

import numpy as np
import pytest
from tables import SPECS, labels, rows, run

from mulle.core.declare.candidates import dummy, extra_trees, lightgbm, logistic, random_forest, ridge
from mulle.core.declare.training import groups, kfold
from mulle.core.errors import TrialError
from mulle.kernel.fitted import answers, classes_of
from mulle.lifecycle.training import search as module
from mulle.lifecycle.training import trial
from mulle.lifecycle.training.fit import fit
from mulle.lifecycle.training.search import Plan, search

VARYING = {"seconds": 0, "memory": 0}


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
    assert [{**t, **VARYING} for t in one.trials] == [{**t, **VARYING} for t in two.trials]


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


def test_two_candidates_of_a_kind_both_take_part_and_an_earlier_winner_is_of_the_one_that_fixes_the_same():
    small, large = lightgbm(n_estimators=5, num_leaves=4), lightgbm(n_estimators=40)
    found = run(*rows(), candidates=(small, ridge(), large), trials=10)
    assert [t["params"].get("n_estimators") for t in found.trials[1:4]] == [5, None, 40]
    assert all(t["params"]["num_leaves"] == 4 for t in found.trials if t["params"].get("n_estimators") == 5)
    assert len({t["params"]["num_leaves"] for t in found.trials if t["params"].get("n_estimators") == 40}) > 1
    earlier = {"candidate": "lightgbm", "params": {"n_estimators": 40, "num_leaves": 17}}
    again = run(*rows(), candidates=(small, ridge(), large), trials=3, warm=[earlier])
    assert (again.trials[1]["params"]["n_estimators"], again.trials[1]["params"]["num_leaves"]) == (40, 17)


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
    assert [{**t, **VARYING} for t in found.trials] == [{**t, **VARYING} for t in again.trials]


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
