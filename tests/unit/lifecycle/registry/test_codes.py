"""Codes of many values, words that training has not seen, and images are compiled and served as they were trained on."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from making import NOW, make
from sklearn.datasets import load_digits

from mulle.core.declare.candidates import custom, hist_gradient_boosting, lightgbm, logistic, ridge
from mulle.core.errors import DeclarationError
from mulle.core.records.bundle import FeatureSpec
from mulle.kernel.bundle import OUTPUT
from mulle.kernel.encode import encode, feature_specs
from mulle.kernel.fitted import answers
from mulle.kernel.graph import open_graph
from mulle.lifecycle.registry.compile import compile_model
from mulle.lifecycle.registry.parity import prove
from mulle.lifecycle.training.candidates import defaults
from mulle.lifecycle.training.fit import fit

CODES = FeatureSpec(name="plane", kind="category", categories=tuple(f"N{i:04}" for i in range(400)))
HASHED = """
import polars as pl
import mulle as ml

flights = ml.Dataset("flights", ml.Files("f.csv"), key="flight_id", time="at", outcome=["air_time"])

@ml.features(flights)
def flight_features(rows):
    return rows.select("distance", counts=ml.hashed("remark", buckets=16))

model = ml.Model("air-time", features=flight_features, target="air_time", task="regression")
"""


def planes(n=2_000):
    """Codes of which some are common, with a target that follows how common they are and nothing else."""
    dice = np.random.default_rng(0)
    codes = np.minimum(dice.geometric(0.01, n) - 1, 399).astype(np.float32)
    share = np.bincount(codes.astype(int), minlength=400)[codes.astype(int)] / n
    codes[::31] = np.nan
    return codes[:, None], 100 * share + dice.normal(0, 0.01, n)


def fitted(candidate, task="regression", gaps=True):
    matrix, target = planes()
    matrix, target = (matrix, target) if gaps else (matrix[~np.isnan(matrix[:, 0])], target[~np.isnan(matrix[:, 0])])
    told = target if task == "regression" else np.where(target > np.median(target), "yes", "no").astype(object)
    settings = {"candidate": candidate.kind, "params": defaults(candidate, task, len(matrix))}
    return fit(settings, matrix, told, task=task, specs=[CODES], seed=0)


@pytest.mark.parametrize("codes", ["means", "frequencies", "both"])
@pytest.mark.parametrize(("task", "word"), [("regression", ridge), ("binary", logistic), ("regression", lightgbm)])
def test_every_encoding_of_long_codes_compiles_and_answers_hostile_codes_alike(task, word, codes):
    model = fitted(word(codes=codes), task)
    compiled = compile_model(model, width=1, task=task)
    assert compiled is not None
    rows = np.concatenate([planes()[0], [[np.nan], [-1], [-2], [399], [400], [1e30], [-1e30], [0.5]]]).astype(np.float32)
    said = answers(model, rows, task)
    assert open_graph(compiled).run(OUTPUT, rows).reshape(said.shape) == pytest.approx(said, rel=1e-4, abs=1e-4)


def test_frequencies_are_those_of_the_rows_fitted_on_and_a_code_never_seen_has_none():
    matrix, _ = planes()
    step = fitted(ridge(codes="frequencies")).named_steps["prepare"].named_transformers_["frequencies"].named_steps["told"]
    codes, counts = np.unique(matrix[~np.isnan(matrix)], return_counts=True)
    assert step.transform(codes[:, None]).ravel() == pytest.approx(counts / len(matrix))
    assert step.transform([[399.5]]).item() == 0


def test_how_common_a_code_is_can_be_learned_from_frequencies():
    matrix, target = planes()
    known = ~np.isnan(matrix[:, 0])
    said = fitted(ridge(codes="frequencies"), gaps=False).predict(matrix)
    assert np.abs(said - target)[known].mean() < 0.1 * target.std()


def test_an_encoding_is_a_word_of_three_also_for_estimators_of_ones_own():
    assert custom(dict, codes="both").params["@codes"] == "both"
    with pytest.raises(DeclarationError, match="no codes 'hash'"):
        lightgbm(codes="hash")


def test_hashed_words_compile_also_those_that_training_never_saw(tmp_path):
    def remarks(random, n):
        return pl.DataFrame({"remark": [f"gate {random.integers(0, 9)} closed" if i % 7 else None for i in range(n)]})

    made = make(tmp_path, ridge(), project_text=HASHED, more=remarks)
    assert made.model is not None
    rows = made.joined.head(4).with_columns(pl.Series("remark", ["never seen words", "", None, "gate " * 9_000]))
    assert prove(made.fitted, made.predictor(), rows, tolerance=1e-4, now=NOW).worst < 1e-5
    first = made.predictor().transform(rows)["counts"][0]
    assert sum(first) == 3, "a word that training never saw counts too"


def test_images_are_lists_of_numbers():
    digits = load_digits()
    told = pl.DataFrame({"image": [json.dumps(row.tolist()) for row in digits.data]})
    features = told.select(pl.col("image").str.json_decode(pl.List(pl.Float64)))
    specs = feature_specs(features)
    matrix, target = encode(features, specs), digits.target.astype(str).astype(object)
    assert matrix.shape == (1797, 64)
    settings = {"candidate": "hist_gradient_boosting", "params": hist_gradient_boosting(max_iter=30).params}
    model = fit(settings, matrix[:1200], target[:1200], task="multiclass", specs=specs, seed=0)
    compiled = compile_model(model, width=64, task="multiclass")
    assert compiled is not None
    said = answers(model, matrix[1200:], "multiclass")
    assert open_graph(compiled).run(OUTPUT, matrix[1200:]).reshape(said.shape) == pytest.approx(said, abs=1e-5)
    assert (model.classes_[said.argmax(axis=1)] == target[1200:]).mean() > 0.85
