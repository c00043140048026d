"""An ensemble's graph answers as its members do together."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from mulle.core.records.bundle import FeatureSpec
from mulle.kernel.bundle import INPUT, OUTPUT
from mulle.kernel.fitted import answers
from mulle.lifecycle.registry.compile import compile_model
from mulle.lifecycle.registry.ensemble import compile_blend
from mulle.lifecycle.registry.native import dump_native
from mulle.lifecycle.training.ensemble import Blend
from mulle.lifecycle.training.fit import fit

SPECS = (
    FeatureSpec(name="carrier", kind="category", categories=("AA", "B6", "UA")),
    FeatureSpec(name="distance", kind="number"),
    FeatureSpec(name="wind", kind="number"),
)
MEMBERS = ("lightgbm", "ridge", "random_forest", "dummy")


def rows(n=400):
    random = np.random.default_rng(0)
    matrix = np.stack([random.integers(-1, 3, n), random.uniform(100, 2000, n), random.normal(0, 5, n)], axis=1)
    target = matrix[:, 1] / 8 + 3 * matrix[:, 2] + 10 * matrix[:, 0] + random.normal(0, 2, n)
    matrix[random.random(n) < 0.05, 1] = np.nan
    return matrix.astype(np.float32), target


def blend(task, calibration=None):
    matrix, target = rows()
    if task != "regression":
        bounds = np.quantile(target, [0.5] if task == "binary" else [0.3, 0.6])
        target = np.array(["short", "middle", "long"], dtype=object)[np.digitize(target, bounds)]
    names = [n if (n, task) != ("ridge", "binary") else "logistic" for n in MEMBERS]
    settings = {
        "candidate": "ensemble",
        "params": {},
        "members": [{"candidate": n, "params": {}, "weight": w} for n, w in zip(names, (0.4, 0.3, 0.2, 0.1), strict=True)],
    }
    settings |= {} if calibration is None else {"calibration": calibration}
    return fit(settings, matrix, target, task=task, specs=SPECS, seed=0), matrix


def ran(graph, matrix):
    return ort.InferenceSession(graph).run([OUTPUT], {INPUT: matrix})[0]


@pytest.mark.parametrize(
    ("task", "calibration"),
    [
        ("regression", None),
        ("binary", None),
        ("multiclass", None),
        ("binary", {"scale": 1.7, "shift": [0.0, -0.4]}),
        ("multiclass", {"scale": 0.6, "shift": [0.0, 0.3, -0.2]}),
    ],
)
def test_the_graph_answers_as_the_members_do_together(task, calibration):
    fitted, matrix = blend(task, calibration)
    assert isinstance(fitted, Blend)
    assert len(fitted.members) == 4
    graph = compile_blend(fitted, lambda m: compile_model(m, width=3, task=task))
    hostile = np.array([[np.nan, np.nan, np.nan], [-1, 1e30, -1e30], [2, 0, 0]], dtype=np.float32)
    for given in (matrix, hostile, matrix[:1]):
        expected = answers(fitted, given, task)
        scale = max(1.0, float(np.abs(expected).max()))
        assert np.abs(ran(graph, given) - expected).max() / scale < 1e-5


def test_a_mean_is_weighted_and_a_calibration_keeps_probabilities():
    fitted, matrix = blend("regression")
    parts = np.stack([m.predict(matrix) for m in fitted.members])
    assert fitted.predict(matrix) == pytest.approx(np.average(parts, axis=0, weights=fitted.weights))
    corrected, matrix = blend("binary", {"scale": 2.0, "shift": [0.0, 1.0]})
    plain, _ = blend("binary")
    said, before = corrected.predict_proba(matrix), plain.predict_proba(matrix)
    assert said.sum(axis=1) == pytest.approx(np.ones(len(matrix)))
    odds, odds_before = (np.log(p[:, 1] / p[:, 0]) for p in (said, before))
    assert odds == pytest.approx(2 * odds_before + 1, abs=1e-3)
    assert set(corrected.predict(matrix)) == {"short", "middle"}


def test_without_a_member_s_compiled_form_there_is_none():
    fitted, _ = blend("regression")
    assert compile_blend(fitted, lambda m: None) is None


def test_a_blend_is_written_and_built_again_without_pickle():
    from skops.io import get_untrusted_types, loads

    fitted, matrix = blend("multiclass", {"scale": 0.6, "shift": [0.0, 0.3, -0.2]})
    written = dump_native(fitted)
    assert dump_native(fitted) == written
    asked = get_untrusted_types(data=written)
    ours = [t for t in asked if t.startswith("mulle.")]
    assert ours == ["mulle.lifecycle.training.ensemble.Blend"]
    again = loads(written, trusted=asked)
    assert answers(again, matrix, "multiclass").tolist() == answers(fitted, matrix, "multiclass").tolist()
