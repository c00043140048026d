"""Estimators and graphs of the user's own: searched, compiled or served natively, and refused when they do not fit."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from making import make
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import BayesianRidge, HuberRegressor, LinearRegression, RidgeClassifier, SGDClassifier
from sklearn.neural_network import MLPClassifier

from mulle.core.declare.candidates import Candidate, custom, onnx
from mulle.core.declare.ranges import choices, floats, ints
from mulle.core.errors import BundleError, DeclarationError
from mulle.core.records.bundle import FeatureSpec
from mulle.kernel.bundle import Predictor
from mulle.kernel.fitted import answers
from mulle.kernel.transform import encode
from mulle.kernel.worker import Worker
from mulle.lifecycle.registry.compile import compile_model
from mulle.lifecycle.training.candidates import build, defaults
from mulle.lifecycle.training.fit import fit
from mulle.lifecycle.training.search import search

SPECS = (FeatureSpec(name="x", kind="number"), FeatureSpec(name="y", kind="number"))


def rows(n=200):
    random = np.random.default_rng(0)
    matrix = random.normal(size=(n, 2)).astype(np.float32)
    matrix[::19, 1] = np.nan
    return matrix, 3.0 * matrix[:, 0] + random.normal(0, 0.1, n)


class Steady(RegressorMixin, BaseEstimator):
    """Answers what the nearest whole number of the first column answered on average."""

    def __init__(self, shift=0.0, random_state=None):
        self.shift, self.random_state = shift, random_state

    def fit(self, X, y):
        keys = np.round(X[:, 0])
        self.table_ = {float(k): float(y[keys == k].mean()) for k in np.unique(keys)}
        return self

    def predict(self, X):
        return np.array([self.table_.get(float(k), 0.0) + self.shift for k in np.round(X[:, 0])])


def linear_graph(X, y):
    """Train anywhere, answer as a graph: here by least squares and scikit-learn's own converter."""
    from skl2onnx import to_onnx
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = LinearRegression() if y.dtype.kind == "f" else LogisticRegression()
    fitted = make_pipeline(SimpleImputer(), model).fit(X, y)
    options = {} if y.dtype.kind == "f" else {"zipmap": False}
    return to_onnx(fitted, X[:1], options=options, target_opset=17).SerializeToString()


class Unfinished:
    """No estimator at all."""


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    # Factories are found by the name of their module, and this file is none that can be imported.
    module = types.ModuleType("ours_of_test")
    for thing in (Steady, linear_graph, Unfinished):
        monkeypatch.setattr(thing, "__module__", "ours_of_test")
        setattr(module, thing.__name__, thing)
    monkeypatch.setitem(sys.modules, "ours_of_test", module)


def run(candidate, matrix, target, task="regression", trials=6):
    return search(matrix, target, None, task=task, candidates=(candidate,), specs=SPECS, trials=trials, timeout=None, seed=0)


def test_a_custom_estimator_is_searched_over_its_own_space():
    candidate = custom(
        HuberRegressor, {"alpha": floats(1e-6, 1.0, log=True), "epsilon": floats(1.1, 3.0), "max_iter": ints(50, 90)}, tol=1e-4
    )
    assert candidate.kind == "custom:HuberRegressor"
    found = run(candidate, *rows())
    assert [t["reason"] for t in found.trials] == [""] * 6
    tried = [t["params"] for t in found.trials[1:]]
    assert tried[0] | {"alpha": 0, "@rows": 0} == {
        "alpha": 0, "epsilon": 2.05, "max_iter": 70, "tol": 1e-4, "@factory": "sklearn.linear_model._huber:HuberRegressor",
        "@matrix": "scaled", "@rows": 0,
    }  # fmt: skip
    assert tried[0]["alpha"] == pytest.approx(1e-3)
    assert len({p["alpha"] for p in tried}) == 5
    assert found.trials[1]["score"] < found.trials[0]["score"] / 5


@pytest.mark.parametrize(
    ("candidate", "task"),
    [
        (custom(HuberRegressor, {"epsilon": floats(1.1, 3.0)}), "regression"),
        (custom(BayesianRidge), "regression"),
        (custom(SGDClassifier, {"loss": choices("log_loss", "modified_huber")}), "binary"),
        (custom(RidgeClassifier), "binary"),
        (custom(MLPClassifier, hidden_layer_sizes=8, max_iter=40), "multiclass"),
    ],
    ids=lambda c: c.kind if isinstance(c, Candidate) else c,
)
def test_a_custom_estimator_that_has_a_converter_is_compiled(tmp_path, candidate, task):
    made = make(tmp_path, candidate, task)
    assert made.model is not None
    assert made.proved().parity.worst < 1e-4
    name, address = made.write()
    assert Predictor.open(address, expected=name).contract.settings["candidate"] == candidate.kind


@pytest.fixture(scope="module")
def child(tmp_path_factory):
    """A child that finds `ours_of_test` and runs native models: to import what they need takes it seconds."""
    folder = tmp_path_factory.mktemp("ours")
    (folder / "ours_of_test.py").write_text(
        "from sklearn.base import BaseEstimator, RegressorMixin\nimport numpy as np\n\n\n"
        "class Steady(RegressorMixin, BaseEstimator):\n"
        "    def fit(self, X, y):\n        return self\n\n"
        "    def predict(self, X):\n"
        "        return np.array([self.table_.get(float(k), 0.0) + self.shift for k in np.round(X[:, 0])])\n"
    )
    worker = Worker()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        yield worker
    worker.close()


@pytest.mark.parametrize("factory", [Steady, KernelRidge])
def test_a_custom_estimator_without_a_converter_is_served_natively(tmp_path, factory, child):
    made = make(tmp_path, custom(factory))
    assert made.model is None
    name, address = made.write()
    predictor = Predictor.open(address, expected=name, worker=child)
    matrix = encode(predictor.transform(made.joined), predictor.contract.features)
    assert np.array_equal(predictor.run(matrix), answers(made.fitted, matrix, "regression"))


def test_an_estimator_that_stands_in_the_project_is_served_from_its_snapshot(tmp_path, child):
    from making import PROJECT

    from mulle.kernel.project import load_project

    body = PROJECT + (
        "\nimport numpy as np\nfrom sklearn.base import BaseEstimator, RegressorMixin\n\n\n"
        "class Middle(RegressorMixin, BaseEstimator):\n"
        "    def fit(self, X, y):\n        self.middle_ = float(np.median(y))\n        return self\n\n"
        "    def predict(self, X):\n        return np.full(len(X), self.middle_)\n"
    )
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "project.py").write_text(body)
    (tmp_path / "project" / "ours.py").write_text("import polars as pl\n\ndef half(name):\n    return pl.col(name) / 2\n")
    loaded = load_project(tmp_path / "project")
    middle = sys.modules[f"mulle_project_{loaded.code}"].Middle
    made = make(tmp_path, custom(middle), project_text=body)
    assert made.model is None
    name, address = made.write()
    predictor = Predictor.open(address, expected=name, worker=child)
    answer = predictor.score(predictor.transform(made.joined.head(3))).values
    assert answer == [pytest.approx(float(np.median(made.truth)))] * 3


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_a_function_that_returns_a_graph_is_a_candidate(tmp_path, task):
    made = make(tmp_path, onnx(linear_graph), task)
    assert made.model is not None
    assert made.proved().parity.worst < 1e-5
    name, address = made.write()
    predictor = Predictor.open(address, expected=name)
    scores = predictor.score(predictor.transform(made.joined))
    assert np.mean(np.array(scores.values) == made.truth) > 0.7 if task != "regression" else len(scores.values) == 300


def test_a_file_that_was_trained_elsewhere_competes_with_the_others(tmp_path):
    matrix, target = rows()
    (tmp_path / "line.onnx").write_bytes(linear_graph(matrix, target))
    found = run(onnx(tmp_path / "line.onnx"), matrix, target, trials=2)
    assert found.settings["candidate"] == "onnx:line"
    assert found.trials[1]["score"] < found.trials[0]["score"] / 5
    fitted = fit(found.settings, matrix, target, task="regression", specs=SPECS, seed=0)
    assert compile_model(fitted, width=2, task="regression") is not None


def graph_of(width, columns, *, kind="float", rows="N", inputs=1):
    from onnx import TensorProto, helper

    taken = TensorProto.FLOAT if kind == "float" else TensorProto.DOUBLE
    given = [helper.make_tensor_value_info(f"in{i}", taken, [rows, width]) for i in range(inputs)]
    weights = helper.make_tensor("w", taken, [width, columns], [0.5] * (width * columns))
    nodes = [helper.make_node("MatMul", ["in0", "w"], ["out"])]
    answer = [helper.make_tensor_value_info("out", taken, [rows, columns])]
    graph = helper.make_graph(nodes, "g", given, answer, [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


@pytest.mark.parametrize(
    ("graph", "task", "said"),
    [
        (b"no graph", "regression", "does not load"),
        (graph_of(2, 1, kind="double"), "regression", "takes in0 tensor.double"),
        (graph_of(2, 1, inputs=2), "regression", "takes in0"),
        (graph_of(3, 1), "regression", "the matrix is .None, 2."),
        (graph_of(2, 1, rows=7), "regression", "the matrix is .None, 2."),
        (graph_of(2, 3), "regression", "answers 64 rows with out .64, 3."),
        (graph_of(2, 1), "binary", "answers 64 rows with out .64, 1."),
        (graph_of(2, 2), "binary", "do not add up to 1"),
    ],
)
def test_a_graph_that_does_not_fit_is_refused_before_it_is_tried(tmp_path, graph, task, said):
    matrix, target = rows()
    matrix = np.nan_to_num(matrix)
    (tmp_path / "own.onnx").write_bytes(graph)
    settings = {"candidate": "onnx:own", "params": defaults(onnx(tmp_path / "own.onnx"), task, 200)}
    target = target if task == "regression" else np.where(target > 0, "a", "b")
    with pytest.raises(BundleError, match=said):
        fit(settings, matrix, target, task=task, specs=SPECS, seed=0)


def test_a_graph_that_gives_no_number_for_a_gap_is_refused(tmp_path):
    matrix, target = rows()
    (tmp_path / "own.onnx").write_bytes(graph_of(2, 1))
    with pytest.raises(BundleError, match="answers training rows with NaN") as caught:
        run_one(onnx(tmp_path / "own.onnx"), matrix, target)
    assert "fill them inside the graph" in caught.value.next


def run_one(candidate, matrix, target):
    settings = {"candidate": candidate.kind, "params": defaults(candidate, "regression", len(matrix))}
    return fit(settings, matrix, target, task="regression", specs=SPECS, seed=0)


def test_what_cannot_be_a_candidate_is_refused_with_a_hint(tmp_path):
    for factory in (lambda: None, graph_of(2, 1)):
        with pytest.raises(DeclarationError, match="cannot be found again"):
            custom(factory, name="x")
    with pytest.raises(DeclarationError, match="the range of 'alpha' is none"):
        custom(HuberRegressor, {"alpha": (0, 1)})
    with pytest.raises(DeclarationError, match="no matrix 'sparse'"):
        custom(HuberRegressor, matrix="sparse")
    with pytest.raises(DeclarationError, match="Unfinished has no fit"):
        run_one(custom(Unfinished), *rows())
    with pytest.raises(DeclarationError, match="nowhere:Thing is not found"):
        build({"candidate": "custom:Thing", "params": {"@factory": "nowhere:Thing"}}, "regression", SPECS, 0)
    with pytest.raises(DeclarationError, match=r"gone\.onnx cannot be read"):
        run_one(onnx(tmp_path / "gone.onnx"), *rows())


def test_ranges_are_refused_when_they_are_none():
    for make_range in (lambda: floats(2, 1), lambda: floats(0, 1, log=True), lambda: ints(1, 5, start=9), lambda: choices()):
        with pytest.raises(DeclarationError):
            make_range()
    with pytest.raises(DeclarationError, match="none of them"):
        choices([1, 2])


def test_the_runs_seed_is_the_estimators_and_what_the_user_says_counts_more():
    for params, seed in (({}, 7), ({"random_state": 3}, 3)):
        built = build(
            {"candidate": "custom:Steady", "params": {"@factory": "ours_of_test:Steady", **params}}, "regression", SPECS, 7
        )
        assert built.steps[-1][1].random_state == seed
