"""Features that become many columns (text, parts of times, pixels) are served as they were trained on."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from making import NOW, make

from mulle.core.declare.candidates import hist_gradient_boosting, lightgbm, logistic, random_forest, ridge, svm
from mulle.kernel.bundle import Predictor
from mulle.kernel.fitted import answers
from mulle.kernel.histograms import build_reference, count
from mulle.kernel.transform import encode
from mulle.lifecycle.monitoring.decode import decode_features
from mulle.lifecycle.registry.card import card
from mulle.lifecycle.registry.parity import prove
from mulle.lifecycle.serving.rows import _text as logged

PROJECT = """
import polars as pl
import mulle as ml

flights = ml.Dataset("flights", ml.Files("f.csv"), key="flight_id", time="at", outcome=["air_time"])

@ml.features(flights)
def flight_features(rows):
    pixels = pl.col("pixels").str.json_decode(pl.List(pl.Float64))
    return rows.select("distance", "remark", "at", "carrier", pixels=pixels, runs=ml.ngrams("carrier", 2))

model = ml.Model("air-time", features=flight_features, target="air_time", task="regression")
"""


def remarks(random, n):
    said = [f"the {a} gate was {b} on arrival" for a in ("north", "south", "far") for b in ("closed", "open", "full", "late")]
    text = [None if i % 23 == 0 else said[random.integers(0, len(said))] + f" {i}" for i in range(n)]
    pixels = [None if i % 29 == 0 else json.dumps([round(float(v), 3) for v in random.uniform(0, 1, 12)]) for i in range(n)]
    return pl.DataFrame({"remark": text, "pixels": pixels}, schema={"remark": pl.String, "pixels": pl.String})


def wide(folder, candidate, task="regression"):
    return make(folder, candidate, task, project_text=PROJECT, more=remarks)


def hostile(joined):
    """Rows as requests may bring them: nulls, empty and endless texts, words never seen, pixels too few and too many."""
    texts = [None, "", "zzz", "gate " * 50_000, "THE NORTH GATE", "\x00\ud7ff 北门 关闭", "closed"]
    pixels = [None, "[]", "[null, 1e30]", json.dumps([0.5] * 500), "[-1e30]", "[1, 2, 3]", "[0]"]
    rows = joined.head(len(texts))
    return rows.with_columns(
        pl.Series("remark", texts), pl.Series("pixels", pixels), distance=pl.Series([None, 0.0, -1.0, 1e30, -1e30, 5.0, 9e9])
    )


@pytest.mark.parametrize(
    ("task", "candidate"),
    [
        *(("regression", c) for c in (ridge(), lightgbm(n_estimators=20), random_forest(n_estimators=4))),
        *(("binary", c) for c in (logistic(), hist_gradient_boosting(max_iter=20), svm())),
    ],
    ids=lambda c: c if isinstance(c, str) else c.kind,
)
def test_text_times_and_pixels_answer_alike_through_the_whole_served_path(tmp_path, task, candidate):
    made = wide(tmp_path, candidate, task)
    kinds = {s.column: s.kind for s in made.contract.features if s.kind != "number"}
    assert kinds == {"remark": "term", "at": "part", "carrier": "category", "pixels": "item", "runs": "term"}
    assert made.model is not None
    proof = made.proved().parity
    assert proof.worst < 1e-5
    rows = hostile(made.joined)
    proof = prove(made.fitted, made.predictor(), rows, tolerance=1e-4, now=NOW)
    size = np.abs(answers(made.fitted, encode(made.predictor().transform(rows), made.contract.features), task)).max()
    assert proof.worst < 1e-5 * max(1.0, float(size) / proof.scale)


def test_a_wide_bundle_is_read_back_scored_from_its_log_and_described(tmp_path):
    made = wide(tmp_path, lightgbm(n_estimators=20))
    name, address = made.write()
    predictor = Predictor.open(address, expected=name)
    assert predictor.contract == made.proved()
    table = predictor.transform(made.joined)
    columns = table.to_dict(as_series=False)
    lines = pl.Series([logged(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)])
    again = decode_features(lines, predictor.contract.features)
    np.testing.assert_allclose(
        encode(again, predictor.contract.features), encode(table, predictor.contract.features), rtol=1e-6, equal_nan=True
    )
    assert predictor.score(again).values == pytest.approx(predictor.score(table).values)
    assert "remark: closed" in card(predictor.contract, {"mae": 1.0})


def test_nothing_that_somebody_wrote_is_in_the_reference_and_nulls_are_counted(tmp_path):
    made = wide(tmp_path, lightgbm(n_estimators=5))
    table = made.predictor().transform(made.joined)
    reference = build_reference(table, made.contract.features, pl.Series(made.truth))
    assert set(reference["features"]) == set(table.columns)
    assert reference["features"]["remark"] == {"kind": "category", "counts": {}, "other": 286, "nulls": 14, "rows": 300}
    assert reference["features"]["at"]["kind"] == "number"
    counted = count(table.with_columns(pixels=pl.lit(None, dtype=pl.List(pl.Float64))), reference)
    assert counted["features"]["pixels"]["nulls"] == 300
