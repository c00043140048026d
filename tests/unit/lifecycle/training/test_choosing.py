"""What a search chooses: the window, the ensemble that beats the best model, the calibration that helps."""

from __future__ import annotations

import numpy as np
import pytest
from tables import DAY, SPECS, labels, rows, run

from mulle.core.declare.candidates import extra_trees, lightgbm, logistic, random_forest, ridge
from mulle.core.errors import DataError
from mulle.kernel.fitted import answers
from mulle.lifecycle.training.fit import fit
from mulle.lifecycle.training.search import Plan


def shifted(n=800):
    """Rows whose meaning turned round: what was learnt before the last two fifths misleads."""
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
    assert found.notes == ("no ensemble beats the best model on validation",)


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
