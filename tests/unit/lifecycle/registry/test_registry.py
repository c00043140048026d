"""From a fitted pipeline to a bundle that is served: compiled, proved, written, read back."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal

import numpy as np
import polars as pl
import pytest
from making import NOW, make
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from mulle.core.declare.candidates import (
    custom,
    dummy,
    elastic_net,
    extra_trees,
    hist_gradient_boosting,
    knn,
    lasso,
    lightgbm,
    linear,
    logistic,
    naive_bayes,
    random_forest,
    ridge,
    svm,
)
from mulle.core.errors import BundleError
from mulle.core.hashing import hash_folder
from mulle.core.records.bundle import FORMAT, FeatureSpec
from mulle.kernel.bundle import Predictor, _Compiled, read_contract
from mulle.kernel.fitted import answers
from mulle.kernel.project import load_project
from mulle.kernel.transform import encode
from mulle.kernel.worker import Worker
from mulle.lifecycle.evaluation.gates import Evidence, judge
from mulle.lifecycle.registry.card import card
from mulle.lifecycle.registry.compile import compile_model
from mulle.lifecycle.registry.latency import measure_latency
from mulle.lifecycle.registry.native import dump_native, load_native
from mulle.lifecycle.registry.parity import prove
from mulle.lifecycle.training.ensemble import Blend
from mulle.lifecycle.training.fit import fit

TREES = [
    *(lightgbm(n_estimators=30), hist_gradient_boosting(max_iter=30), random_forest(n_estimators=5)),
    *(extra_trees(n_estimators=5),),
]
REGRESSORS = [dummy(), linear(), ridge(), lasso(), elastic_net(), *TREES, svm(), knn()]
CLASSIFIERS = [dummy(), ridge(), logistic(), *TREES, naive_bayes(), svm(), knn()]
CASES = [("regression", c) for c in REGRESSORS] + [(t, c) for t in ("binary", "multiclass") for c in CLASSIFIERS]


def uncompiled(task):
    """Neighbours as scikit-learn finds them: which of several equally far away is not said."""
    return custom(KNeighborsRegressor if task == "regression" else KNeighborsClassifier, name="own")


def hostile(k, n=60):
    """Encoded rows that training never had: gaps everywhere, codes never seen, extremes of either sign."""
    rows = np.zeros((n, k), dtype=np.float32)
    rows[:10], rows[10:20], rows[20:30] = np.nan, 1e30, -1e30
    rows[30:40], rows[40:50] = -1.0, 9999.0
    rows[50:] = np.where(np.arange(k) % 2, np.nan, 1e9)
    return rows


@pytest.mark.parametrize(("task", "candidate"), CASES, ids=lambda c: c if isinstance(c, str) else c.kind)
def test_every_candidate_compiles_and_the_served_path_answers_alike(tmp_path, task, candidate):
    made = make(tmp_path, candidate, task)
    assert made.model is not None
    proof = made.proved().parity
    assert proof.rows == 300
    assert proof.worst < 1e-5
    assert proof.outside == 0


@pytest.mark.parametrize(("task", "candidate"), CASES, ids=lambda c: c if isinstance(c, str) else c.kind)
def test_every_compiled_candidate_answers_hostile_rows_as_the_fitted_one(tmp_path, task, candidate):
    made = make(tmp_path, candidate, task)
    rows = hostile(len(made.contract.features))
    fitted, served = answers(made.fitted, rows, task), made.predictor().run(rows)
    # A line goes on for ever: far outside, the distance is held against the answer's own size.
    scale = np.maximum(made.contract.scale, np.abs(fitted)) if task == "regression" else 1.0
    assert np.isfinite(fitted).all()
    assert float((np.abs(fitted - served) / scale).max()) < 1e-5


@pytest.fixture(scope="module")
def child():
    """A child that runs native models: to import what they need takes it seconds."""
    worker = Worker()
    yield worker
    worker.close()


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_what_does_not_compile_is_served_natively_and_answers_alike(tmp_path, child, task):
    made = make(tmp_path, uncompiled(task), task)
    assert made.model is None
    assert made.proved().parity.worst == 0
    name, address = made.write()
    predictor = Predictor.open(address, expected=name, worker=child)
    matrix = encode(predictor.transform(made.joined), predictor.contract.features)
    matrix = np.concatenate([matrix, hostile(matrix.shape[1])])
    assert np.array_equal(predictor.run(matrix), answers(made.fitted, matrix, task))


def test_a_bundle_is_read_back_and_answers_as_the_fitted_model(tmp_path):
    made = make(tmp_path)
    name, address = made.write()
    assert address.name == name == hash_folder(address)
    assert {p.name for p in address.iterdir()} == {
        "bundle.json",
        "model.onnx",
        "transform",
        "reference.json",
        "sample.json",
        "lock.txt",
        "card.md",
    }
    predictor = Predictor.open(address, expected=name)
    shutil.rmtree(made.folder / "project")
    table = predictor.transform(made.joined)
    scores = predictor.score(table)
    assert scores.values == pytest.approx(made.fitted.predict(encode(table, predictor.contract.features)).tolist(), rel=1e-4)
    assert scores.probabilities is None
    assert predictor.contract == made.proved()
    assert set(predictor.reference["features"]) == {"carrier", "distance", "hour", "at", "half"}
    assert hash_folder(address) == name, "reading leaves the folder as it was"


def test_writing_the_same_bundle_twice_gives_the_same_address_and_leaves_no_litter(tmp_path):
    made = make(tmp_path)
    assert made.write() == made.write()
    assert len(list((tmp_path / "bundles").iterdir())) == 1


def test_a_classifier_answers_with_a_label_and_its_probabilities(tmp_path):
    made = make(tmp_path, logistic(), "binary")
    name, address = made.write()
    predictor = Predictor.open(address, expected=name)
    scores = predictor.score(predictor.transform(made.joined))
    assert set(scores.values) == {"fine", "late"}
    assert scores.probabilities.shape == (300, 2)
    assert np.mean(np.array(scores.values) == made.truth) > 0.8


def test_an_unseen_category_is_answered_and_told(tmp_path):
    predictor = make(tmp_path).predictor()
    strange = predictor.transform(make(tmp_path).joined.head(3).with_columns(carrier=pl.Series(["UA", "ZZ", None])))
    scores = predictor.score(strange)
    assert len(scores.values) == 3
    assert scores.unseen == {1: ("carrier",)}
    assert predictor.score(strange.head(0)).values == []


def test_a_model_that_does_not_compile_is_served_by_a_child_that_is_started_again_when_it_dies(tmp_path):
    made = make(tmp_path, random_forest(n_estimators=3), "multiclass", compiled=False)
    assert made.proved().parity.worst == 0
    name, address = made.write()
    assert made.write() == (name, address)
    predictor = Predictor.open(address, expected=name)
    worker = predictor._engine._worker
    assert worker.pid is None, "a child is started at the first answer"
    try:
        table = predictor.transform(made.joined)
        matrix = encode(table, predictor.contract.features)
        predictor.run(matrix[:1])
        os.kill(worker.pid, signal.SIGKILL)
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
        assert np.array_equal(predictor.run(matrix), answers(made.fitted, matrix, "multiclass"))
        assert set(predictor.score(table).values) == {"short", "middle", "long"}
        child = worker.pid
    finally:
        predictor.close()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_native_lightgbm_is_read_back_and_a_strange_type_is_not(tmp_path):
    import skops.io

    made = make(tmp_path, lightgbm(n_estimators=5), compiled=False)
    matrix = encode(made.predictor().transform(made.joined), made.contract.features)
    (tmp_path / "model.skops").write_bytes(dump_native(made.fitted))
    assert np.array_equal(load_native(tmp_path / "model.skops").predict(matrix), made.fitted.predict(matrix))
    (tmp_path / "model.skops").write_bytes(skops.io.dumps(made))
    for refused in (lambda: load_native(tmp_path / "model.skops"), lambda: dump_native(made)):
        with pytest.raises(BundleError, match="only models made by Mulle"):
            refused()
    with pytest.raises(BundleError, match="cannot be written without pickle"):
        dump_native(x for x in ())


def test_a_bundle_that_was_changed_is_refused(tmp_path):
    name, address = make(tmp_path).write()
    (address / "card.md").write_text("better than it is")
    with pytest.raises(BundleError, match="not the bundle that was registered"):
        Predictor.open(address, expected=name)
    with pytest.raises(BundleError, match="found nothing"):
        Predictor.open(tmp_path / "gone", expected=name)


def test_a_bundle_without_its_proof_or_of_a_later_layout_is_refused(tmp_path):
    made = make(tmp_path)
    with pytest.raises(BundleError, match="parity proof"):
        made.write(made.contract)
    _, address = made.write()
    contract = json.loads((address / "bundle.json").read_text())
    (address / "bundle.json").write_text(json.dumps(contract | {"parity": None}))
    with pytest.raises(BundleError, match="no parity proof"):
        Predictor.open(address)
    (address / "bundle.json").write_text(json.dumps(contract | {"format": FORMAT + 1}))
    with pytest.raises(BundleError, match=f"layout {FORMAT + 1}"):
        read_contract(address)
    (address / "bundle.json").write_text("{")
    with pytest.raises(BundleError, match="not JSON"):
        read_contract(address)


def test_a_bundle_of_the_layout_before_wide_features_still_answers(tmp_path):
    made = make(tmp_path, columns=["carrier", "distance", "hour", "at", "half"])
    _, address = made.write()
    predictor = Predictor.open(address)
    table = predictor.transform(made.joined)
    contract = json.loads((address / "bundle.json").read_text())
    for feature in contract["features"]:
        for name in ("source", "part", "position", "weight"):
            feature.pop(name)
    (address / "bundle.json").write_text(json.dumps(contract | {"format": 2}))
    old = Predictor.open(address)
    assert old.contract.format == 2
    assert old.score(table).values == predictor.score(table).values


def test_a_model_that_answers_otherwise_fails_its_proof(tmp_path):
    made, other = make(tmp_path), make(tmp_path, ridge())
    proof = prove(made.fitted, other.predictor(), made.joined, tolerance=1e-4, now=NOW)
    assert proof.worst > 0.01
    assert proof.outside > 0.5


def test_parity_needs_rows_and_inputs(tmp_path):
    made = make(tmp_path)
    for rows in (made.joined.head(0), made.joined.drop("carrier")):
        with pytest.raises(BundleError, match="parity cannot be proved"):
            prove(made.fitted, made.predictor(), rows, tolerance=1e-4, now=NOW)


def test_a_pipeline_without_a_compiled_form_gives_none(tmp_path):
    from sklearn.ensemble import HistGradientBoostingRegressor

    matrix = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    codes = np.round(np.abs(matrix) * 3)
    fitted = HistGradientBoostingRegressor(max_iter=2, categorical_features=[0]).fit(codes, matrix[:, 0])
    assert compile_model(fitted, width=2, task="regression") is None


def test_thresholds_decide_as_the_original_on_neighbouring_floats():
    from lightgbm import LGBMRegressor

    # Every value has its float32 neighbour on the other side of the target's step.
    low = np.random.default_rng(0).uniform(1, 1000, 200).astype(np.float32)
    pairs = np.stack([low, np.nextafter(low, np.float32(np.inf))], axis=1).ravel()[:, None]
    target = np.tile([0.0, 1.0], 200) + pairs[:, 0] * 10
    model = LGBMRegressor(n_estimators=20, num_leaves=200, min_child_samples=1, max_bin=1000, verbose=-1, n_jobs=1).fit(
        pairs, target
    )
    served = _Compiled(compile_model(model, width=1, task="regression"), 1).run(pairs)[:, 0]
    assert np.abs(served - model.predict(pairs)).max() / target.std() < 1e-5


def test_the_card_says_which_figures_belong_to_which_fit(tmp_path):
    contract = make(tmp_path).proved()
    gates = judge(
        load_project(tmp_path / "project").model("air-time").gates,
        Evidence(metrics={"mae": 5.0}, rows=10, parity=contract.parity),
    )
    text = card(contract, {"mae": 5.0}, gates)
    for words in (
        "# air-time",
        "flights@3",
        "lightgbm",
        "no figure here is of the refit",
        "| mae | 5 |",
        "no champion yet",
        "`carrier`",
    ):
        assert words in text


def test_the_card_names_the_features_that_were_selected(tmp_path):
    made = make(tmp_path)
    selection = {"by": "importance", "kept": ["distance"], "scores": {"distance": 0.9, "carrier": 0.1}}
    settings = {**made.contract.settings, "selection": selection}
    kept = tuple(f for f in made.contract.features if f.name == "distance")
    text = card(dataclasses.replace(made.contract, settings=settings, features=kept), {"mae": 5.0})
    for words in ("Features kept: 1 of 2, by importance", "| `distance` | number |  | 0.9 |", "Left out: `carrier` (0.1)"):
        assert words in text


def test_latency_is_measured_in_seconds(tmp_path):
    made = make(tmp_path)
    p50, p99 = measure_latency(made.predictor(), made.joined, n=20)
    assert 0 < p50 <= p99 < 1


MANY_CODES = FeatureSpec(name="code", kind="category", categories=tuple(f"c{i:04}" for i in range(400)))


@pytest.mark.parametrize("kind", ["lightgbm", "hist_gradient_boosting", "random_forest", "ridge", "svm"])
@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_codes_of_many_values_compile_with_their_means(kind, task):
    random = np.random.default_rng(0)
    effect = random.normal(0, 5, 400)
    codes = random.integers(0, 400, 2400)
    matrix = np.stack([codes, random.normal(size=2400)], axis=1).astype(np.float32)
    value = effect[codes] + matrix[:, 1]
    cuts = {"binary": [0.5], "multiclass": [0.3, 0.6]}.get(task, [])
    target = np.array(["a", "b", "c"])[np.digitize(value, np.quantile(value, cuts))] if cuts else value
    matrix[::50] = np.nan
    specs = (MANY_CODES, FeatureSpec(name="x", kind="number"))
    settings = {"candidate": kind, "params": {"n_estimators": 20} if kind in ("lightgbm", "random_forest") else {}}
    fitted = fit(settings, matrix, target, task=task, specs=specs, seed=0)
    model = compile_model(fitted, width=2, task=task)
    assert model is not None
    asked = np.concatenate([matrix, hostile(2)[:20], [[-1.0, 0.0], [9999.0, 1e9], [np.nan, -1e9]]]).astype(np.float32)
    said = answers(fitted, asked, task)
    served = _Compiled(model, 1).run(asked).reshape(said.shape)
    assert float((np.abs(said - served) / (np.maximum(value.std(), np.abs(said)) if task == "regression" else 1)).max()) < 1e-4
    if task == "regression":
        assert np.abs(said[:2400, 0] - value).mean() < 0.6 * np.abs(value - value.mean()).mean()


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_an_ensemble_compiles_whatever_its_members_are_and_is_written_natively_when_one_does_not(tmp_path, task):
    linear_one = make(tmp_path, ridge() if task == "regression" else logistic(), task)
    parts = [linear_one, make(tmp_path, hist_gradient_boosting(max_iter=20), task)]
    specs, matrix = linear_one.contract.features, hostile(len(linear_one.contract.features))
    matrix = np.concatenate([matrix, encode(linear_one.predictor().transform(linear_one.joined), specs)])
    blend = Blend([p.fitted for p in parts], [0.25, 0.75], task)
    said = answers(blend, matrix, task)
    served = _Compiled(compile_model(blend, width=len(specs), task=task), 1).run(matrix).reshape(said.shape)
    assert float((np.abs(said - served) / np.maximum(np.abs(said), linear_one.contract.scale)).max()) < 1e-5
    mixed = Blend([linear_one.fitted, make(tmp_path, uncompiled(task), task).fitted], [0.5, 0.5], task)
    assert compile_model(mixed, width=len(specs), task=task) is None
    (tmp_path / "model.skops").write_bytes(dump_native(mixed))
    assert np.array_equal(answers(load_native(tmp_path / "model.skops"), matrix, task), answers(mixed, matrix, task))
