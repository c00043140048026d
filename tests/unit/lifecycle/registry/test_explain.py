"""What each feature did: exact for boosted trees and linear models, sampled for anything else, always adding up."""

from __future__ import annotations

import json

import numpy as np
import pytest
from making import make

from mulle.core.declare.candidates import dummy, hist_gradient_boosting, knn, lightgbm, logistic, random_forest, ridge
from mulle.core.errors import BundleError
from mulle.core.hashing import hash_folder
from mulle.kernel.bundle import Predictor
from mulle.kernel.transform import encode
from mulle.kernel.worker import Worker
from mulle.lifecycle.registry.child import _Opened


def explained(tmp_path, candidate, task="regression", rows=6, **more):
    """Make a bundle and explain the first rows; gives the explanation, the matrix and what was made."""
    made = make(tmp_path, candidate, task, **more)
    _, address = made.write()
    matrix = encode(made.predictor().transform(made.joined), made.contract.features)[:rows]
    opened = _Opened(address)
    return opened.explainer.explain(matrix), matrix, made


def margins(probabilities):
    logs = np.log(probabilities)
    return logs - logs[:, ::-1] if logs.shape[1] == 2 else logs - logs.mean(axis=1, keepdims=True)


def by_column(made, contributions):
    """Sum LightGBM's own contributions of the columns that a feature became."""
    names = [spec.column for spec in made.contract.features]
    columns = list(dict.fromkeys(names))
    return np.stack([contributions[:, [n == c for n in names]].sum(axis=1) for c in columns], axis=1)


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_boosted_trees_are_explained_as_lightgbm_does_it_itself(tmp_path, task):
    found, matrix, made = explained(tmp_path, lightgbm(n_estimators=60), task, rows=20)
    assert (found.by, found.what) == ("trees", "value" if task == "regression" else "margin")
    own = made.fitted.steps[-1][1].booster_.predict(matrix, pred_contrib=True)
    said = made.predictor().run(matrix)
    if task == "regression":
        chosen, total = own, said[:, 0]
    else:
        best = said.argmax(axis=1)
        total = margins(said)[np.arange(20), best]
        if task == "binary":
            chosen = own * np.where(best == 1, 1, -1)[:, None]
        else:
            classes = own.reshape(20, 3, -1)
            chosen = classes[np.arange(20), best] - classes.mean(axis=1)
    assert np.allclose(found.cells[:, :-1], by_column(made, chosen[:, :-1]), atol=1e-4)
    assert np.allclose(found.cells[:, -1], chosen[:, -1], atol=1e-4)
    assert np.allclose(found.cells.sum(axis=1), total, rtol=1e-4, atol=1e-3)


def test_trees_explain_gaps_and_other_boosters_alike(tmp_path):
    found, matrix, made = explained(tmp_path, hist_gradient_boosting(max_iter=30), "multiclass", rows=40)
    assert np.isnan(matrix).any()
    said = made.predictor().run(matrix)
    assert found.by == "trees"
    assert np.allclose(found.cells.sum(axis=1), margins(said)[np.arange(40), said.argmax(axis=1)], rtol=1e-3, atol=1e-3)


def test_a_linear_model_gives_coefficient_times_value_above_mean(tmp_path):
    found, matrix, made = explained(tmp_path, ridge())
    assert (found.by, found.what) == ("permutation", "value")
    names = [spec.name for spec in made.contract.features]
    hour = names.index("hour")
    sample = json.loads(next((tmp_path / "bundles").glob("*/sample.json")).read_text())["encoded"]
    mean = np.mean([row[hour] for row in sample])
    slope = np.diff(made.predictor().run(np.array([matrix[0], matrix[0] + np.eye(len(names))[hour]], np.float32))[:, 0])[0]
    columns = list(dict.fromkeys(spec.column for spec in made.contract.features))
    assert np.allclose(found.cells[:, columns.index("hour")], slope * (matrix[:, hour] - mean), rtol=1e-2, atol=1e-3)
    assert np.allclose(found.cells.sum(axis=1), made.predictor().run(matrix)[:, 0], rtol=1e-5)


@pytest.mark.parametrize(
    ("candidate", "task", "what"),
    [
        (logistic(), "binary", "margin"),
        (logistic(), "multiclass", "margin"),
        (random_forest(n_estimators=5), "binary", "probability"),
        (random_forest(n_estimators=5), "regression", "value"),
        (knn(), "multiclass", "probability"),
        (dummy(), "binary", "margin"),
    ],
    ids=lambda v: getattr(v, "kind", v),
)
def test_anything_else_is_explained_by_its_answers_alone_and_adds_up(tmp_path, candidate, task, what):
    found, matrix, made = explained(tmp_path, candidate, task)
    assert (found.by, found.what) == ("permutation", what)
    said = made.predictor().run(matrix)
    best = said.argmax(axis=1)
    total = said[:, 0] if task == "regression" else (margins(said) if what == "margin" else said)[np.arange(len(said)), best]
    assert np.allclose(found.cells.sum(axis=1), total, rtol=1e-4, atol=1e-4)
    again = _Opened(next((tmp_path / "bundles").iterdir())).explainer.explain(matrix)
    assert np.array_equal(again.cells, found.cells), "the same row is explained the same each time"


def test_a_feature_that_the_model_does_not_use_did_nothing(tmp_path):
    found, _, made = explained(tmp_path, lightgbm(n_estimators=40))
    used = by_column(made, made.fitted.steps[-1][1].booster_.feature_importance()[None, :].astype(float))[0]
    assert (np.abs(found.cells[:, :-1][:, used == 0]) == 0).all()


def uncounted(address):
    """Take out of a bundle's trees how many rows went through each node, as compilers of before left it."""
    import onnx

    graph = onnx.load(address / "model.onnx")
    node = next(n for n in graph.graph.node if n.op_type == "TreeEnsembleRegressor")
    kept = [a for a in node.attribute if a.name != "nodes_hitrates"]
    assert len(kept) < len(node.attribute)
    del node.attribute[:]
    node.attribute.extend(kept)
    onnx.save(graph, address / "model.onnx")


@pytest.mark.parametrize("task", ["regression", "binary"])
def test_bundles_of_before_open_by_their_own_hash_and_answer_as_ever(tmp_path, task):
    made = make(tmp_path, lightgbm(n_estimators=30), task=task)
    today, address = made.write()
    matrix = encode(made.predictor().transform(made.joined), made.contract.features)[:50]
    expected = Predictor.open(address, expected=today).run(matrix)
    uncounted(address)
    known = hash_folder(address)  # as it was recorded then
    assert known != today
    assert np.array_equal(Predictor.open(address, expected=known).run(matrix), expected)
    with pytest.raises(BundleError, match="not the bundle that was registered"):
        Predictor.open(address, expected=today)


def test_bundles_of_before_are_explained_by_permutation(tmp_path):
    made = make(tmp_path, lightgbm(n_estimators=30))
    _, address = made.write()
    uncounted(address)
    (address / "sample.json").unlink()
    matrix = encode(made.predictor().transform(made.joined), made.contract.features)[:5]
    found = _Opened(address).explainer.explain(matrix)
    assert found.by == "permutation"
    assert np.allclose(found.cells.sum(axis=1), made.predictor().run(matrix)[:, 0], rtol=1e-5)


def test_the_child_says_the_same(tmp_path):
    found, matrix, _ = explained(tmp_path, lightgbm(n_estimators=30))
    worker = Worker()
    try:
        told, cells = worker.call("explain", next((tmp_path / "bundles").iterdir()), matrix)
    finally:
        worker.close()
    assert np.array_equal(cells, found.cells)
    assert (told["by"], told["explains"]) == ("trees", "value")
