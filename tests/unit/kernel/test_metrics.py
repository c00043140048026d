"""Metrics agree with scikit-learn's, and say no in words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mulle.core.errors import UsageError
from mulle.kernel.answered import answered
from mulle.kernel.metrics import METRICS, class_text, losses, lower_is_better, measure, measure_weighted, metrics_for


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 60))
def test_regression_metrics_are_scikit_learns(seed, n):
    random = np.random.default_rng(seed)
    truth, values = random.normal(10, 5, n), random.normal(10, 5, n)
    found = measure(metrics_for("regression"), "regression", truth, values)
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(truth, values))
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(truth, values))
    assert found["r2"] == pytest.approx(sk.r2_score(truth, values))
    assert found["mape"] == pytest.approx(sk.mean_absolute_percentage_error(truth, values))
    assert found["medae"] == pytest.approx(sk.median_absolute_error(truth, values))
    assert found["smape"] == pytest.approx(np.mean(2 * np.abs(truth - values) / (np.abs(truth) + np.abs(values))))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([("no", "yes"), ("a", "b", "c")]))
def test_class_metrics_are_scikit_learns(seed, classes):
    random = np.random.default_rng(seed)
    n = 60
    truth = np.array(classes, dtype=object)[np.r_[np.arange(len(classes)), random.integers(0, len(classes), n)]]
    chances = random.dirichlet(np.ones(len(classes)), len(truth)).round(2) + 1e-3  # rounded, so that there are ties
    chances /= chances.sum(axis=1, keepdims=True)
    values = np.array(classes, dtype=object)[chances.argmax(axis=1)]
    found = measure(metrics_for("binary"), "binary", truth, values, chances, classes)
    two = len(classes) == 2
    assert found["log_loss"] == pytest.approx(sk.log_loss(truth, chances, labels=list(classes)))
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, values))
    area = sk.roc_auc_score(truth == "yes", chances[:, 1]) if two else sk.roc_auc_score(truth, chances, multi_class="ovr")
    assert found["auc"] == pytest.approx(area)
    f1 = sk.f1_score(truth, values, pos_label="yes") if two else sk.f1_score(truth, values, average="macro", labels=list(classes))
    assert found["f1"] == pytest.approx(f1)
    average = {"pos_label": "yes", "average": "binary"} if two else {"average": "macro"}
    assert found["precision"] == pytest.approx(sk.precision_score(truth, values, zero_division=0, **average))
    assert found["recall"] == pytest.approx(sk.recall_score(truth, values, **average))
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(truth, values))
    assert found["mcc"] == pytest.approx(sk.matthews_corrcoef(truth, values))
    columns = [1] if two else [0, 1, 2]
    curves = [sk.average_precision_score(truth == classes[c], chances[:, c]) for c in columns]
    assert found["average_precision"] == pytest.approx(np.mean(curves))
    if two:
        assert found["brier"] == pytest.approx(sk.brier_score_loss(truth == "yes", chances[:, 1]))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["regression", "binary", "multiclass"]), st.integers(3, 40))
def test_a_row_that_weighs_three_counts_as_three_rows(seed, task, n):
    random = np.random.default_rng(seed)
    weights = random.integers(0, 4, n)
    weights[0] += 1
    if task == "regression":
        whole = answered(task, random.normal(5, 2, n).round(1), random.normal(5, 2, n).round(1))
    else:
        classes = ("no", "yes") if task == "binary" else ("a", "b", "c")
        names, chances = np.array(classes, dtype=object), random.dirichlet(np.ones(len(classes)), n).round(1) + 1e-3
        whole = answered(task, random.choice(names, n), names[chances.argmax(axis=1)], chances, classes)
    names = metrics_for(task)
    found = measure_weighted(names, whole, np.stack([np.ones(n), weights]).astype(float))
    for row, drawn in enumerate((np.arange(n), np.repeat(np.arange(n), weights))):
        part = whole.take(drawn)
        alone = measure_weighted(names, part, np.ones((1, len(drawn))))
        assert {k: v[row] for k, v in found.items()} == pytest.approx({k: v[0] for k, v in alone.items()}, rel=1e-9, abs=1e-9)


def test_expected_calibration_error_over_two_bins_is_what_hand_and_pencil_give():
    truth = np.array(["no", "yes", "yes", "no"], dtype=object)
    said = np.array([0.05, 0.05, 0.95, 0.95])
    found = measure(["ece"], "binary", truth, truth, np.stack([1 - said, said], axis=1), ("no", "yes"))
    assert found["ece"] == pytest.approx(0.45)


def test_without_probabilities_classes_are_measured_by_what_was_answered():
    truth, values = np.array(["a", "b", "b", "c"], dtype=object), np.array(["a", "b", "a", "c"], dtype=object)
    found = measure(metrics_for("multiclass", probabilities=False), "multiclass", truth, values)
    assert found["accuracy"] == 0.75
    assert found["recall"] == pytest.approx(sk.recall_score(truth, values, average="macro"))
    assert found["f1"] == pytest.approx(sk.f1_score(truth, values, average="macro"))


def test_a_constant_target_and_one_class_have_figures_all_the_same():
    flat = measure(metrics_for("regression"), "regression", np.full(9, 3.0), np.full(9, 4.0))
    assert (flat["r2"], flat["mae"]) == (0.0, 1.0)
    ones = np.array(["yes"] * 5, dtype=object)
    alone = measure(metrics_for("binary"), "binary", ones, ones, np.tile([0.2, 0.8], (5, 1)), ("no", "yes"))
    assert all(np.isfinite(v) for v in alone.values())
    assert (alone["auc"], alone["recall"], alone["mcc"]) == (0.5, 1.0, 0.0)


def test_a_rows_losses_average_to_the_metric():
    truth, values = np.array([1.0, 2.0, 9.0]), np.array([2.0, 2.0, 4.0])
    assert losses("regression", truth, values).mean() == measure(["mae"], "regression", truth, values)["mae"]
    labels, chances = np.array(["a", "b"], dtype=object), np.array([[0.7, 0.3], [0.6, 0.4]])
    mean = losses("binary", labels, labels, chances, ("a", "b")).mean()
    assert mean == pytest.approx(measure(["log_loss"], "binary", labels, labels, chances, ("a", "b"))["log_loss"])


def test_a_class_the_model_never_saw_costs_much_but_not_everything():
    found = measure(["log_loss", "brier"], "binary", np.array(["c"], dtype=object), np.array(["a"], dtype=object),
                    np.array([[0.9, 0.1]]), ("a", "b"))  # fmt: skip
    assert 10 < found["log_loss"] < 20
    assert found["brier"] > 0.5


def test_labels_from_json_and_from_a_frame_are_the_same_text():
    assert class_text(np.array([1.0, 0.0])).tolist() == class_text([1, 0]).tolist() == ["1", "0"]
    assert class_text([True, False]).tolist() == class_text(np.array([True, False])).tolist() == ["true", "false"]
    truth = np.array([True, False])
    assert measure(["accuracy"], "binary", truth, np.array(["true", "true"], dtype=object))["accuracy"] == 0.5


def test_every_metric_knows_its_direction():
    rising = {"r2", "accuracy", "balanced_accuracy", "auc", "average_precision", "f1", "precision", "recall", "mcc"}
    assert {name for name in METRICS if not lower_is_better(name)} == rising


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: measure(["mae"], "binary", np.array(["a"]), np.array(["a"])), "does not fit"),
        (lambda: measure(["mae"], "regression", np.array([]), np.array([])), "cannot be measured"),
        (lambda: measure(["log_loss"], "binary", np.array(["a"]), np.array(["a"])), "needs probabilities"),
        (lambda: lower_is_better("speed"), "no metric 'speed'"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_words(call, said):
    with pytest.raises(UsageError, match=said):
        call()
