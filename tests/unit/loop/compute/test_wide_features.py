"""One run, from text, times, long codes and pixels to a bundle that answers: for built-in candidates and for own ones."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.unit.loop.compute.working import through_json, working

from mulle.core.records.base import Json
from mulle.kernel.bundle import Predictor
from mulle.loop.compute.bundling import bundle_model
from mulle.loop.compute.evaluating import evaluate_model
from mulle.loop.compute.judging import judge_model
from mulle.loop.compute.searching import search_model
from mulle.loop.compute.work import Work, build_features

NOW = datetime(2024, 3, 1, tzinfo=UTC)

PROJECT = """
import numpy as np
import polars as pl
import mulle as ml
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import HuberRegressor

tickets = ml.Dataset("tickets", ml.Files("t.csv"), key="ticket", time="at", outcome="hours")

@ml.features(tickets)
def seen(rows):
    pixels = pl.col("pixels").str.extract_all(r"[0-9.]+").cast(pl.List(pl.Float64), strict=False)
    return rows.select("subject", "at", "shop", pixels=pixels, pieces=ml.ngrams("kind", 2))

def huber(**params):
    return HuberRegressor(max_iter=300, **params)

class Middle(RegressorMixin, BaseEstimator):
    def fit(self, X, y):
        self.middle_ = float(np.median(y))
        return self

    def predict(self, X):
        return np.full(len(X), self.middle_)

def graph(X, y):
    from skl2onnx import to_onnx
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline

    fitted = make_pipeline(SimpleImputer(keep_empty_features=True), Ridge()).fit(X, y)
    return to_onnx(fitted, X[:1], target_opset=17).SerializeToString()

model = ml.Model(
    "hours", features=seen, target="hours", task="regression", split=ml.holdout("15d"), SELECT
    search=ml.Search([CANDIDATES], trials=TRIALS),
    gates=[ml.parity(1e-4), ml.bad_input(), ml.at_least("r2", LEAST)],
)
"""


def made_work(folder: Path, candidates: str, *, least: float = 0.5, select: str = "") -> Work:
    text = PROJECT.replace("CANDIDATES", candidates).replace("LEAST", str(least)).replace("SELECT", select)
    text = text.replace("TRIALS", str(2 + candidates.count("ml.")))
    dice, n = np.random.default_rng(1), 1_500
    what, shop = dice.integers(0, 4, n), dice.integers(0, 300, n)
    effect = dice.normal(0, 4, 300)
    pixels = dice.uniform(0, 1, (n, 4)).round(3)
    said = ["refund", "delivery", "broken", "invoice"]
    rows = pl.DataFrame(
        {
            "ticket": [f"T{i}" for i in range(n)],
            "at": [NOW - timedelta(hours=1440 * (n - i) / n) for i in range(n)],
            "subject": [None if i % 41 == 0 else f"please help with the {said[w]} of order {i}" for i, w in enumerate(what)],
            "shop": [f"s{s}" for s in shop],
            "kind": [("ax", "by", "cz")[i % 3] + str(i % 7) for i in range(n)],
            "pixels": [json.dumps(p.tolist()) for p in pixels],
            "hours": np.array([30.0, 10.0, 50.0, 5.0])[what] + effect[shop] + 10 * pixels[:, 2] + dice.normal(0, 1, n),
        }
    ).with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))
    return working(folder, text, {"tickets": rows}, "hours", NOW)


def run(work: Work) -> tuple[Json, Json]:
    """Run every stage; give the search's answer and the bundle's, all gates passed."""
    build_features(work)
    found = through_json(search_model(work, None, []))
    assert {t["reason"] for t in found["trials"]} == {""}
    evaluation = through_json(evaluate_model(work, found["settings"]))
    bundle = through_json(bundle_model(work, found["settings"], evaluation["metrics"], work.project.folder))
    gates = through_json(judge_model(work, None, evaluation, bundle, False))["gates"]
    assert {g["gate"]: g["reason"] for g in gates if g["verdict"] != "pass"} == {}
    return found, bundle


def asked(work: Work, bundle: Json) -> list[float]:
    """Open the bundle as serving does, and answer rows that training never had."""
    predictor = Predictor.open(Path(bundle["address"]), expected=bundle["hash"])
    rows = pl.DataFrame(
        {
            "ticket": ["a", "b", "c"],
            "at": [NOW, None, NOW + timedelta(days=4000)],
            "subject": ["REFUND of this", None, "words that nobody ever wrote " * 2000],
            "shop": ["s1", "never seen", None],
            "kind": ["ax1", "", None],
            "pixels": ["[0.1, 0.2, 0.3, 0.4]", "[]", None],
        },
        schema_overrides={"at": pl.Datetime("us", "UTC")},
    )
    try:
        return [float(v) for v in predictor.score(predictor.transform(rows)).values]
    finally:
        predictor.close()


@pytest.mark.parametrize(
    ("candidates", "compiled", "least"),
    [
        ("ml.ridge(), ml.elastic_net(), ml.svm()", "onnx", 0.85),
        ("ml.lightgbm(), ml.hist_gradient_boosting(), ml.extra_trees()", "onnx", 0.85),
        ('ml.custom(huber, {"alpha": ml.floats(1e-6, 1, log=True)})', "onnx", 0.85),
        ("ml.onnx(graph)", "onnx", 0.5),
        ("ml.custom(Middle)", "native", -1.0),
    ],
    ids=["linear", "trees", "custom", "onnx", "own class"],
)
def test_a_run_from_wide_features_to_a_bundle_that_answers(tmp_path: Path, candidates: str, compiled: str, least: float) -> None:
    work = made_work(tmp_path, candidates, least=least)
    _, bundle = run(work)
    assert bundle["compiled"] == compiled
    names = bundle["features"]
    assert {"subject: refund", "at", "at: hour", "shop", "pixels: 3", "pieces: ax"} <= set(names)
    predictor = Predictor.open(Path(bundle["address"]), expected=bundle["hash"])
    assert predictor.reference["calendar"] == ["at"], "the time itself, whatever it becomes in the matrix"
    predictor.close()
    answers = asked(work, bundle)
    assert all(np.isfinite(answers))
    if compiled == "onnx":
        assert answers[0] > 20, "a refund takes thirty hours"


def test_single_terms_and_parts_can_be_selected(tmp_path: Path) -> None:
    work = made_work(tmp_path, "ml.lightgbm()", select="select=ml.select(top=6),")
    found, bundle = run(work)
    assert len(bundle["features"]) == 6
    assert {"subject: broken", "shop"} < set(bundle["features"]) == set(found["selection"]["kept"])
