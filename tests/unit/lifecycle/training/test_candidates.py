"""Each kind of candidate can be searched, learns, and says what it is not for."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np
import pytest

from mulle.core.declare.candidates import Candidate, elastic_net, lasso, linear, naive_bayes, ridge, svm
from mulle.core.errors import DeclarationError, TrialError
from mulle.core.records.bundle import FeatureSpec
from mulle.kernel.fitted import answers
from mulle.lifecycle.training.candidates import _KINDS, build, defaults
from mulle.lifecycle.training.fit import fit
from mulle.lifecycle.training.kinds.extras import EXTRAS
from mulle.lifecycle.training.search import search

SPECS = (
    FeatureSpec(name="kind", kind="category", categories=("a", "b", "c")),
    FeatureSpec(name="size", kind="number"),
    FeatureSpec(name="age", kind="number"),
)
HERE = sorted(k for k in _KINDS.keys() - {"dummy"} if k not in EXTRAS or find_spec(k) is not None)
CLASSES_ONLY, NUMBERS_ONLY = {"logistic", "naive_bayes"}, {"linear", "lasso", "elastic_net"}


def rows(n=300, scale=1.0):
    random = np.random.default_rng(0)
    matrix = np.stack([random.integers(-1, 3, n), random.uniform(0, 100, n), random.normal(0, 3, n)], axis=1).astype(np.float32)
    target = scale * (matrix[:, 1] + 5 * matrix[:, 2] + 10 * matrix[:, 0] + random.normal(0, 1, n))
    matrix[random.random(n) < 0.05, 2] = np.nan
    return matrix, target.astype(np.float64)


def classes(target, task):
    cuts = [0.5] if task == "binary" else [0.3, 0.6]
    return np.array(["low", "mid", "top"], dtype=object)[np.digitize(target, np.quantile(target, cuts))]


def run(candidate, task, matrix, target, trials=3):
    return search(matrix, target, None, task=task, candidates=(candidate,), specs=SPECS, trials=trials, timeout=None, seed=0)


@pytest.mark.parametrize("kind", [k for k in HERE if k not in CLASSES_ONLY])
def test_every_kind_for_numbers_learns_whatever_the_unit_of_the_target(kind):
    for scale in (1e-3, 1e3):
        matrix, target = rows(scale=scale)
        found = run(Candidate(kind=kind), "regression", matrix, target)
        assert [t["reason"] for t in found.trials] == [""] * 3
        assert found.trials[1]["score"] < 0.6 * found.trials[0]["score"]


@pytest.mark.parametrize("kind", [k for k in HERE if k not in NUMBERS_ONLY])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_every_kind_for_classes_learns(kind, task):
    matrix, target = rows()
    found = run(Candidate(kind=kind), task, matrix, classes(target, task))
    assert [t["reason"] for t in found.trials] == [""] * 3
    assert found.trials[1]["score"] < 0.8 * found.trials[0]["score"]


@pytest.mark.parametrize(
    ("candidate", "task", "instead"),
    [
        (linear(), "binary", "ml.logistic"),
        (lasso(), "multiclass", "ml.logistic"),
        (elastic_net(), "binary", "ml.logistic"),
        (naive_bayes(), "regression", "ml.ridge"),
    ],
    ids=lambda c: c.kind if isinstance(c, Candidate) else None,
)
def test_a_kind_that_has_no_answer_to_a_task_says_which_has(candidate, task, instead):
    with pytest.raises(DeclarationError, match=f"no candidate for {task}") as caught:
        build({"candidate": candidate.kind, "params": {}}, task, SPECS, 0)
    assert instead in caught.value.next


def test_a_support_vector_machine_on_many_rows_is_a_failed_trial_with_its_reason_at_once():
    matrix, target = rows(8_000)
    found = search(
        matrix, target, None, task="regression", candidates=(svm(), ridge()), specs=SPECS, trials=3, timeout=None, seed=0
    )
    (refused,) = [t for t in found.trials if t["candidate"] == "svm"]
    assert refused["state"] == "failed"
    assert "at most 5000 rows, here are 6400" in refused["reason"]
    assert refused["seconds"] < 1
    assert found.settings["candidate"] == "ridge"


def test_a_support_vector_machine_that_won_on_fewer_rows_is_fitted_on_all():
    matrix, target = rows(5_500)
    settings = {"candidate": "svm", "params": defaults(svm(), "regression", 4_400)}
    fitted = fit(settings, matrix, target, task="regression", specs=SPECS, seed=0)
    assert np.abs(answers(fitted, matrix, "regression")[:, 0] - target).mean() < 5
    with pytest.raises(TrialError, match="at most 5000"):
        build({"candidate": "svm", "params": defaults(svm(), "regression", 5_500)}, "regression", SPECS, 0)


def test_an_unknown_kind_and_an_unknown_parameter_are_named():
    with pytest.raises(DeclarationError, match="no candidate of the kind 'forest'"):
        build({"candidate": "forest"}, "regression", SPECS, 0)
    with pytest.raises(DeclarationError, match=r"candidate ridge: .*strength"):
        build({"candidate": "ridge", "params": {"strength": 1}}, "regression", SPECS, 0)


@pytest.mark.parametrize("kind", sorted(EXTRAS))
def test_an_extra_that_is_not_installed_says_how_to_install_it(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(DeclarationError, match=f"{kind} is not installed") as caught:
        build({"candidate": kind, "params": {}}, "regression", SPECS, 0)
    assert caught.value.next == f"pip install mulle[{kind}]"
