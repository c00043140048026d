"""A model version that MLflow already has becomes a version of a declared model, judged by its gates."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import polars as pl
import pytest
from commands import command
from mlflow.models import infer_signature
from onnx import ModelProto, TensorProto, checker, helper
from sklearn.linear_model import Ridge

import mulle as ml
from mulle.adapters.tracking.mlflow import MlflowTracking

PROJECT = """
import polars as pl
import mulle as ml

trips = ml.Dataset("trips", ml.Files("trips.parquet"), key="id", time="at", outcome=["minutes"])

@ml.features(trips)
def shape(rows):
    return rows.select("distance", "stops", double=2 * pl.col("distance"))

@ml.features(trips)
def worded(rows):
    return rows.select("distance", "stops", "origin")

gates = [ml.at_most("mae", 2), ml.parity(1e-4)]
minutes = ml.Model("minutes", features=shape, target="minutes", task="regression", gates=gates)
told = ml.Model("told", features=worded, target="minutes", task="regression", gates=gates)
"""


def trips(n: int = 300) -> pl.DataFrame:
    dice = np.random.default_rng(0)
    distance, stops = dice.uniform(50, 2000, n), dice.integers(0, 4, n)
    start = datetime(2013, 3, 1, tzinfo=UTC)
    return pl.DataFrame(
        {
            "id": [f"t{i}" for i in range(n)],
            "at": pl.datetime_range(start, start + timedelta(hours=4 * (n - 1)), "4h", eager=True),
            "origin": dice.choice(["EWR", "JFK"], n),
            "distance": distance,
            "stops": stops,
            "minutes": distance / 8 + 30 * stops + dice.normal(0, 1, n),
        }
    )


def linear(weights: list[float]) -> ModelProto:
    """Take stops and distance, in this order."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        [helper.make_tensor("w", TensorProto.FLOAT, [2, 1], weights)],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(made)
    return made


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lab")
    (folder / "project.py").write_text(PROJECT)
    trips().write_parquet(folder / "trips.parquet")
    uri = f"sqlite:///{folder}/.mulle/mlflow.db"
    MlflowTracking(uri, folder / ".mulle" / "artifacts").aliases("x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setenv("MLFLOW_REGISTRY_URI", uri)
        signature = infer_signature(pd.DataFrame({"stops": [1.0], "distance": [2.0]}))
        for weights in ([30.0, 0.125], [0.0, 1.0]):
            with mlflow.start_run(experiment_id="0"):
                mlflow.onnx.log_model(linear(weights), name="m", signature=signature, registered_model_name="old")
        rows = trips().to_pandas()
        with mlflow.start_run(experiment_id="0"):
            mlflow.sklearn.log_model(
                Ridge().fit(rows[["stops", "distance"]].astype(float), rows["minutes"]), name="m", signature=signature,
                registered_model_name="pickled", serialization_format="cloudpickle", pip_requirements=[],
            )  # fmt: skip
    return folder


def test_a_version_from_mlflow_is_judged_registered_and_served(lab: Path) -> None:
    done = command(lab, "models", "import", "models:/old/1", "minutes", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model_version"] == 1
    version = json.loads(command(lab, "models", "show", "minutes@champion", "--json").stdout)
    assert (version["causes"][0]["type"], version["causes"][0]["id"]) == ("import", "models:/old/1")
    assert version["metrics"]["mae"] < 2
    rows = trips().head(20)
    said = ml.project(lab).load("minutes@1").predict(rows)["value"]
    assert said.to_numpy() == pytest.approx((rows["distance"] / 8 + 30 * rows["stops"]).to_numpy(), rel=1e-5)


def test_a_worse_version_is_turned_away_by_the_gates(lab: Path) -> None:
    done = command(lab, "models", "import", "models:/old/2", "minutes", "--json")
    assert done.returncode == 1, done.stderr
    view = json.loads(done.stdout)
    assert (view["state"], view["model_version"]) == ("rejected", None)
    assert view["reason"].startswith("at_most(mae, 2)")


def test_features_that_mean_something_else_there_are_refused_by_name(lab: Path) -> None:
    done = command(lab, "models", "import", "models:/old/1", "told", "--json")
    assert done.returncode == 1
    assert "feature origin is String" in json.loads(done.stdout)["reason"]


def test_a_pickle_is_imported_on_the_persons_word_and_served(lab: Path) -> None:
    refused = command(lab, "models", "import", "models:/pickled/1", "minutes")
    assert refused.returncode == 1
    assert "is a pickle, which may run anything" in refused.stderr
    assert "--trust" in refused.stderr
    done = command(lab, "models", "import", "models:/pickled/1", "minutes", "--trust", "--json")
    assert done.returncode == 0, done.stderr
    number = json.loads(done.stdout)["model_version"]
    version = json.loads(command(lab, "models", "show", f"minutes@{number}", "--json").stdout)
    assert (version["causes"][0]["id"], version["compiled"]) == ("models:/pickled/1", "onnx")
    rows = trips().head(20)
    said = ml.project(lab).load(f"minutes@{number}").predict(rows)["value"]
    theirs = Ridge().fit(trips().select("stops", "distance").to_numpy(), trips()["minutes"].to_numpy())
    assert said.to_numpy() == pytest.approx(theirs.predict(rows.select("stops", "distance").to_numpy()), rel=1e-4)


def test_an_address_that_names_nothing_is_wrong_use(lab: Path) -> None:
    for source, said in (("models:/old/99", "not found"), ("old/1", "names no model version")):
        done = command(lab, "models", "import", source, "minutes")
        assert done.returncode == 2
        assert said in done.stderr
